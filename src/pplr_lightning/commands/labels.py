"""`labels`: which settings of DBSCAN find people in images of your own."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from jsonargparse import Namespace
from rich.progress import track
from timm import is_model
from torch import Tensor

from pplr_lightning import functional as F
from pplr_lightning.atomic_write import write_whole, written_whole
from pplr_lightning.commands.parser import OneLineParser
from pplr_lightning.data import PPLRDataModule, ReIDDataset, Sample, Splits
from pplr_lightning.data.datasets import UNKNOWN, frame_numbers, tracklet_numbers
from pplr_lightning.data.decoding import BadImages
from pplr_lightning.data.pairs import image_names, read_pairs
from pplr_lightning.evaluation.extraction import extract_features
from pplr_lightning.labelers import GridLabels, Space, candidates, label_grid
from pplr_lightning.labelers.assignment import Assignment
from pplr_lightning.labelers.grid import (
    EPS,
    K1,
    MIN_SAMPLES,
    TRACKLETS_K1,
    check_grid,
    least_doubtful,
)
from pplr_lightning.methods import PPLRModule, ReIDModule
from pplr_lightning.networks import PartNetwork
from pplr_lightning.networks.part_network import PRETRAINED
from pplr_lightning.report.labels_page import Candidate, columns_of, lines, write_labels_page
from pplr_lightning.visualization import caption_of, clusters_figure, save_figure

DESCRIPTION = """
Embeds the training images of a data set once, labels them under a grid of settings in seconds, and
writes a folder to look at: labels.html, labels.csv, pictures of the clusters of the candidates, and
for each a YAML file that `fit --config` takes and a table that `correct` goes on from. Identities,
where they are known, are compared with and not used.
"""
PAGE, TABLE = "labels.html", "labels.csv"
SHOWN = 3  # candidates


class _TrainingImages(ReIDDataset):
    """Another data set without its query and gallery, which are neither decoded nor embedded."""

    def __init__(self, dataset: ReIDDataset) -> None:
        self.dataset = dataset

    def prepare(self) -> None:
        self.dataset.prepare()

    def load(self) -> Splits:
        return self.dataset.load()._replace(query=[], gallery=[])


def run(args: list[str]) -> list[GridLabels]:
    """Embeds, labels, prints the table and writes the folder.

    Returns:
        The labels of every setting.
    """
    options = _parse(args)
    out = Path(options.out)
    if out.exists():
        raise ValueError(f"{out} is there already: name another folder or remove it")
    grid_options = {
        name: options[name] for name in ("k1", "k2", "eps", "min_samples", "images_per_person")
    }
    grid_options["k1"] = list(K1) if options.k1 is None else options.k1
    check_grid(**grid_options)
    if options.pairs is not None and not Path(options.pairs).is_file():
        raise FileNotFoundError(f"--pairs {options.pairs}: no such table")
    module = starting_point(options.weights, options.backbone, options.last_stride)
    size = options.image_size
    if not options.weights.endswith(".ckpt"):
        size = size or (256, 128)
    prepared = module.prepared(size)
    data = PPLRDataModule(
        _TrainingImages(options.data),
        image_size=prepared.image_size,
        mean=prepared.mean,
        std=prepared.std,
        eval_batch_size=options.batch_size,
        num_workers=options.num_workers,
        padding=0,  # nothing is augmented, whatever the size
        bad_images=options.bad_images,
    )
    data.prepare_data()
    data.setup("predict")
    samples = data.train_samples
    root, names = image_names(options.data, samples)
    pairs = None if options.pairs is None else read_pairs(Path(options.pairs), root, names)
    tracklets = None
    if options.pool_tracklets and any(one.tracklet_id != UNKNOWN for one in samples):
        tracklets = torch.tensor(tracklet_numbers(samples))
        if pairs is not None:
            pairs.of_tracklets(tracklets)  # with its complaints
    network = module.network.to("cuda" if torch.cuda.is_available() else "cpu")
    batches = data.labeling_dataloader()
    features, _ = extract_features(network, track(batches, "Embedding"))
    space = Space.of(
        features,
        cameras=torch.tensor([sample.camera_id for sample in samples]),
        persons=torch.tensor([sample.person_id for sample in samples]),
        frames=torch.tensor(frame_numbers(samples)),
    )
    if tracklets is not None:
        grid_options["k1"] = list(TRACKLETS_K1) if options.k1 is None else options.k1
        print(f"labels are of {int(tracklets.max()) + 1:,} tracklets of {len(samples):,} images")
    labelled = space if tracklets is None else space.of_tracklets(tracklets)
    grid = label_grid(labelled, **grid_options, pairs=pairs)
    print("\n".join(lines([_row(labels) for labels in grid])))
    write_labels(
        out,
        samples,
        grid,
        title=str(getattr(options.data, "root", type(options.data).__name__)),
        start=options.weights if options.weights != PRETRAINED else options.backbone,
        images_per_person=options.images_per_person,
        space=labelled,
        root=root,
        pairs=options.pairs,
    )
    print(f"look at {out / PAGE}: no number without identities proves that clusters are people")
    return grid


def write_labels(
    folder: Path,
    samples: Sequence[Sample],
    grid: Sequence[GridLabels],
    *,
    title: str,
    start: str,
    images_per_person: float | None = None,
    space: Space | None = None,
    root: Path | None = None,
    pairs: str | None = None,
) -> list[GridLabels]:
    """Writes page, table, pictures and configs of labels into a new folder.

    Args:
        folder: To write, whole or not at all.
        samples: N images.
        grid: Their labels, of `labelers.label_grid`.
        title: What the page calls the images.
        start: What it calls the weights that they were embedded with.
        images_per_person: What the user expects.
        space: What was labelled: the pictures then show the most doubtful clusters, too, and each
            candidate gets a file to correct its clusters by (`labelers.assignment`), of tracklets
            one of their first frames.
        root: Folder that the file's names are relative to; needed with `space`.
        pairs: Table that the labels obey, which the configs then name.

    Returns:
        The labels that the page shows pictures of: the candidates, or where every setting is in
        doubt those with the fewest doubts, which then have no config.

    Raises:
        OSError: The folder cannot be written.
    """
    sound = candidates(grid, SHOWN)
    shown = sound or least_doubtful(grid, SHOWN)
    rows = {id(labels): _row(labels) for labels in grid}
    with written_whole(folder, folder=True) as aside:
        write_whole(aside / TABLE, _table(list(rows.values())))
        pictured = []
        for number, labels in enumerate(shown, 1):
            name = str(labels.setting)
            clear = None
            if space is not None:
                images = space if space.frames is None else space.frames[0]
                clear = F.simplified_silhouette(images.features, labels.classes).cpu()
            figure = clusters_figure(samples, labels.classes, silhouettes=clear, when=name)
            picture = aside / f"clusters{number}.png"
            save_figure(figure, picture)
            config = aside / f"candidate{number}.yaml"
            text = "" if not sound else _config(labels, title, pairs)
            if text:
                write_whole(config, text)
            if text and space is not None and root is not None:
                found = _assignment(samples, labels.classes, space, root)
                found.write(config.with_suffix(".parquet"))
            pictured.append(
                Candidate(
                    name,
                    rows[id(labels)],
                    str(folder / config.name) if text else "",
                    text,
                    picture,
                    caption_of(figure),
                )
            )
        write_labels_page(
            aside / PAGE,
            title=title,
            start=start,
            tiles=[
                (f"{len(samples):,}", "images"),
                (str(len(grid)), "settings"),
                (str(sum(bool(labels.doubts) for labels in grid)), "set aside"),
            ],
            rows=list(rows.values()),
            candidates=pictured,
            images_per_person=images_per_person,
            pairs=pairs,
        )
    return shown


def starting_point(
    weights: str, backbone: str = "resnet50.tv_in1k", last_stride: int = 1
) -> ReIDModule:
    """Builds what images are embedded with.

    Args:
        weights: A checkpoint of a training (.ckpt); or another file of weights of `backbone`; or
            the name of a timm model, whose published weights are taken; or `pretrained` for those
            of `backbone`.
        backbone: Name of a timm model.
        last_stride: As of `PartNetwork`.

    Raises:
        FileNotFoundError: `weights` is neither a file nor a model that timm knows.
        ValueError: The file cannot be read, or does not fit.
    """
    file = Path(weights)
    if file.suffix == ".ckpt":
        return ReIDModule.load_from_checkpoint(file)
    if not file.is_file() and weights != PRETRAINED:
        if not is_model(weights):
            raise FileNotFoundError(
                f"--weights {weights}: no such file, and no model of timm; give a checkpoint, a "
                "file of weights with its --backbone, or the name of a model"
            )
        weights, backbone = PRETRAINED, weights
    network = PartNetwork(backbone, weights=weights, num_parts=0, last_stride=last_stride)
    return PPLRModule(network)


def _row(labels: GridLabels) -> dict[str, object]:
    return {**labels.setting._asdict(), **labels.values, "doubts": labels.doubts}


def _table(rows: Sequence[dict[str, object]]) -> str:
    text = io.StringIO()
    names = [*columns_of(rows), "set_aside"]
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "set_aside": "; ".join(row["doubts"])})  # type: ignore[arg-type]
    return text.getvalue()


def _assignment(samples: Sequence[Sample], classes: Tensor, space: Space, root: Path) -> Assignment:
    """Keeps labels to be corrected, of the images or of a frame of each tracklet."""
    if space.frames is not None:
        numbers = space.frames[1].numpy()
        order = np.lexsort((classes.numpy() < 0, numbers))  # frames left out come last
        firsts = torch.from_numpy(order[np.unique(numbers[order], return_index=True)[1]])
        samples = [samples[image] for image in firsts.tolist()]
        classes = classes[firsts]
    names = [Path(sample.path).relative_to(root).as_posix() for sample in samples]
    return Assignment.of(space, classes, root=root, names=names)


def _config(labels: GridLabels, title: str, pairs: str | None) -> str:
    options: dict[str, object] = {} if pairs is None else {"pairs": pairs}
    labeler = {"class_path": "DBSCAN", "init_args": labels.setting._asdict()}
    head = f"# Labels of {title}: {labels.values['clusters']:,.0f} clusters, ".replace("\n", " ")
    head += f"{labels.values['outliers']:.0%} outliers in the first epoch from the same start.\n"
    return head + yaml.safe_dump(
        {"pseudo_labels": {"labeler": labeler, **options}}, sort_keys=False
    )


def _parse(args: list[str]) -> Namespace:
    parser = OneLineParser(prog="python -m pplr_lightning labels", description=DESCRIPTION)
    parser.add_subclass_arguments(
        ReIDDataset,
        "data",
        help="reader of the images, as of `data.dataset` in a config; a folder when left out",
    )
    parser.set_defaults({"data": {"class_path": "pplr_lightning.data.ImageFolder"}})
    parser.add_argument(
        "--weights",
        type=str,
        default=PRETRAINED,
        help="what to embed with: a checkpoint of a training (.ckpt), another file of weights of "
        "--backbone, or the name of a timm model, whose published weights are taken",
    )
    parser.add_argument("--backbone", type=str, default="resnet50.tv_in1k", help="a timm model")
    parser.add_argument("--last_stride", type=int, default=1, help="of the backbone, 1 or 2")
    parser.add_argument(
        "--image_size",
        type=tuple[int, int] | None,
        help="height and width; those of a checkpoint, else 256 x 128",
    )
    parser.add_argument("--batch_size", type=int, default=128, help="images at a time")
    parser.add_argument("--num_workers", type=int, default=4, help="loader processes")
    parser.add_argument(
        "--bad_images", type=BadImages, default="raise", help="`skip` leaves unreadable ones out"
    )
    parser.add_argument(
        "--k1",
        type=list[int] | None,
        help=f"as of DBSCAN; a list ({list(K1)}, or {list(TRACKLETS_K1)} of tracklets)",
    )
    parser.add_argument("--k2", type=list[int] | None, help="likewise; k1 // 5 when left out")
    parser.add_argument("--eps", type=list[float], default=list(EPS), help="likewise")
    parser.add_argument("--min_samples", type=list[int], default=list(MIN_SAMPLES), help="likewise")
    parser.add_argument(
        "--images_per_person",
        type=float | None,
        help="images that a person has on average, where you know or guess it",
    )
    parser.add_argument(
        "--pool_tracklets",
        type=bool,
        default=True,
        help="label tracklets, where the data have any, as `fit` does",
    )
    parser.add_argument(
        "--pairs",
        type=str | None,
        help="table of pairs that the labels obey, as of `pseudo_labels.pairs`, such as `correct` "
        "writes",
    )
    parser.add_argument("--out", type=str, required=True, help="the folder to write")
    return parser.instantiate_classes(parser.parse_args(args))
