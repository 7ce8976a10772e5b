"""Small trees of image files in the layouts of real data sets."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def touch(*paths: Path) -> None:
    """Writes an image to each path, whatever its ending."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 16)).save(path, "PNG")


def plant(root: Path, folders: dict[str, list[str]]) -> Path:
    """Writes the images named to the folders named; returns `root`."""
    touch(*(root / folder / name for folder, names in folders.items() for name in names))
    return root


def ids(samples) -> list[tuple[int, int]]:
    """Returns the person and the camera of each image."""
    return [sample[1:3] for sample in samples]


def as_msmt17(market: Path, root: Path) -> Path:
    """Links a set in the Market-1501 layout, lays it out like MSMT17_V1 and returns `root`."""
    splits = {"bounding_box_train": ("train", "train"), "query": ("query", "test")}
    splits["bounding_box_test"] = ("gallery", "test")
    for source, (split, folder) in splits.items():
        lines = []
        for image in sorted((market / source).iterdir()):
            person, camera = image.name.split("_")[:2]
            if person == "-1":
                continue
            name = f"{person}/{person}_000_{int(camera[1:-2]):02d}_0303noon_{len(lines):04d}_0.png"
            (root / folder / person).mkdir(parents=True, exist_ok=True)
            (root / folder / name).symlink_to(image)
            lines.append(f"{name} {int(person)}\n")
        (root / f"list_{split}.txt").write_text("".join(lines))
    lines = (root / "list_train.txt").read_text().splitlines(keepends=True)
    (root / "list_train.txt").write_text("".join(lines[:-5]))
    (root / "list_val.txt").write_text("".join(lines[-5:]))
    return root


def as_veri776(market: Path, root: Path) -> Path:
    """Links a set in the Market-1501 layout, lays it out like VeRi-776 and returns `root`."""
    folders = {"bounding_box_train": "image_train", "query": "image_query"}
    folders["bounding_box_test"] = "image_test"
    for source, folder in folders.items():
        (root / folder).mkdir(parents=True)
        for number, image in enumerate(sorted((market / source).iterdir())):
            person, camera = image.name.split("_")[:2]
            if person != "-1":
                name = f"{person}_c{int(camera[1:-2]):03d}_{number:08d}_0.png"
                (root / folder / name).symlink_to(image)
    return root
