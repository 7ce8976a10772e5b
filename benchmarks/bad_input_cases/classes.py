"""Options of the classes that a config names: methods, networks, labelers, data sets, callbacks."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any

from .bench import Bench, Case, some
from .options import CHOICE, REAL, TRUTH, WHOLE

# What else each method needs, beside which every option of its own is spoiled.
METHODS: dict[str, list[str]] = {
    "PPLRModule": [],
    "ClusterContrastModule": [],
    "ISEModule": [],
    "DCMIPModule": [],
    "SpCLModule": ["--pseudo_labels.labeler=SelfPaced", "--data.repeat_images=false"],
    "MMTModule": ["--data.views=2"],
    "ICEModule": ["--data.views=2", "--data.plain_view=true"],
    "SimCLRModule": [
        "--pseudo_labels.labeler=Instances", "--data.instances=2",
        "--data.augmentation=contrastive",
    ],
    "PartIdentityModule": [
        "--pseudo_labels.labeler=Identities", "--model.network=WindowNetwork",
        "--model.network.backbone=test_resnet", "--model.network.weights=null",
        "--model.network.stripes=2", "--model.network.norm_batch_size=8",
    ],
}  # fmt: skip
LABELERS = ("DBSCAN", "CameraDBSCAN", "HDBSCAN", "KMeans", "NeighborComponents", "SelfPaced")
VALUES = {bool: TRUTH, int: WHOLE, float: REAL}


def class_cases(bench: Bench) -> Iterator[Case]:
    """Options of classes, found by their signatures; each alone with its method."""
    import pplr_lightning
    from pplr_lightning import data, labelers, methods, networks

    turn = 0
    for name, needs in METHODS.items():
        base = ["fit", *bench.options(), f"--model={name}", *needs]
        if name not in ("PPLRModule", "PartIdentityModule"):
            base += ["--model.network.num_parts=0"]
        yield Case(f"class {name}: as it is", base, ())
        turn += 1
        for option, value in _spoiled(getattr(methods, name), turn, ("network",)):
            yield _case(name, [*base, f"--model.{option}={value}"], option, value)
    window = ["fit", *bench.options(), "--model=PartIdentityModule", *METHODS["PartIdentityModule"]]
    for option, value in _spoiled(networks.WindowNetwork, 2, ("backbone", "image_size", "weights")):
        words = [*window, f"--model.network.{option}={value}"]
        yield _case("WindowNetwork", words, option, value)
    for name in LABELERS:
        turn += 1
        base = ["fit", *bench.options(), f"--pseudo_labels.labeler={name}"]
        base += ["--pseudo_labels.labeler.num_clusters=4"] if name == "KMeans" else []
        for option, value in _spoiled(getattr(labelers, name), turn, ()):
            words = [*base, f"--pseudo_labels.labeler.{option}={value}"]
            yield _case(name, words, option, value)
    consensus = ["fit", *bench.options(), "--pseudo_labels.refinement=Consensus"]
    for option, value in _spoiled(labelers.Consensus, 0, ()):
        words = [*consensus, f"--pseudo_labels.refinement.{option}={value}"]
        yield _case("Consensus", words, option, value)
    for name, needs in (
        (
            "SyntheticReID",
            [
                f"--data.dataset.root={bench.new() / 'drawn'}", "--data.dataset.train_identities=8",
                "--data.dataset.test_identities=4", "--data.dataset.images_per_identity=6",
            ],
        ),
        ("ImageFolder", [f"--data.dataset.root={bench.few}"]),
        ("Market1501", [f"--data.dataset.root={bench.folder / 'set'}"]),
        ("CUHK03", [f"--data.dataset.root={bench.folder / 'set'}"]),
    ):  # fmt: skip
        turn += 1
        base = ["fit", *bench.options(), f"--data.dataset=pplr_lightning.data.{name}", *needs]
        for option, value in _spoiled(getattr(data, name), turn, ("root",)):
            yield _case(name, [*base, f"--data.dataset.{option}={value}"], option, value)
    for name, section in (
        ("PseudoLabeling", "pseudo_labels"), ("RetrievalEvaluation", "evaluation"),
        ("Figures", "figures"), ("RunRecord", "record"),
    ):  # fmt: skip
        turn += 1
        skipped = ("labeler", "refinement", "probes", "topk")
        for option, value in _spoiled(getattr(pplr_lightning, name), turn, skipped):
            words = ["fit", *bench.options(), f"--{section}.{option}={value}"]
            yield _case(name, words, option, value)


def _case(name: str, words: list[str], option: str, value: str) -> Case:
    return Case(
        f"class {name}: {option}={value}", words, (option, value or "''", name, "the folder")
    )


def _spoiled(kind: Any, turn: int, skipped: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yields options of a class with values of other types, or out of range."""
    hints = typing.get_type_hints(kind.__init__)
    for number, name in enumerate(inspect.signature(kind).parameters):
        if name in skipped:
            continue
        hint, may_be_null = hints[name], False
        if isinstance(hint, types.UnionType):
            may_be_null = type(None) in typing.get_args(hint)
            hint = next(one for one in typing.get_args(hint) if one is not type(None))
        values: tuple[str, ...] = VALUES.get(hint, CHOICE)
        for value in some(values, turn + number):
            if not (may_be_null and value == "null"):
                yield name, value
