"""With which setting a run was made, in sentences; and its options, by dotted name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pplr_lightning.report.history import working_times
from pplr_lightning.report.reading import LABELER, Run

# A report is passed on: it names nobody's home.
HOME = re.compile(r"(/home|/Users|[A-Za-z]:\\Users)[/\\][^/\\\s'\"]+|/root(?=/|$)")
CLUSTERS = "Unsupervised: clusters of the images are the labels; identities were not used."
# Of the library's labelers that find no clusters.
LABELERS = {
    "Identities": (
        "Supervised: trained on the true identities. An upper bound or a warm start, not "
        "label-free."
    ),
    "Instances": "Unsupervised: every image is a class of its own; identities were not used.",
}


def describe_setting(run: Run) -> list[tuple[str, str]]:
    """Says by topic what a stranger must know to compare the run's results."""
    found = [
        ("Method", _named(run, "model")),
        ("Labels", _labels(run)),
        ("Cameras", _cameras(run)),
        ("Start", _start(run)),
        ("Data", _data(run)),
        ("Evaluation", _evaluation(run)),
        ("Length", _length(run)),
        ("Machine", _machine(run)),
    ]
    return [(topic, sentence) for topic, sentence in found if sentence]


def _named(run: Run, path: str) -> str:
    """Names a class with its own options, but for those that are classes."""
    options = run.option(f"{path}.init_args")
    own = options.items() if isinstance(options, dict) else ()
    said = ", ".join(f"{n} {_plain(value)}" for n, value in own if not isinstance(value, dict))
    return run.kind(path) + (f" ({said})" if said else "")


def _labels(run: Run) -> str:
    if run.option("pseudo_labels") is None:
        return ""
    package = str(run.option(f"{LABELER}.class_path") or "pplr_lightning").partition(".")[0]
    known = LABELERS.get(run.kind(LABELER), CLUSTERS) if package == "pplr_lightning" else ""
    return f"{known} Labeler: {_named(run, LABELER) or 'DBSCAN'}.".lstrip()  # the default


def _cameras(run: Run) -> str:
    weight = run.option("model.camera_weight")
    uses = {
        f"the camera loss (weight {weight})": weight,
        "the distance between images (CameraDBSCAN)": run.kind(LABELER) == "CameraDBSCAN",
        "the choice of positives": run.option("data.use_cameras"),
    }
    used = [use for use, on in uses.items() if on]
    if not used:
        return "Camera ids were not used in training." if run.option("data") else ""
    if used == ["the choice of positives"]:
        return (
            "Camera ids were used in the choice of positives only, as in the published setting "
            "“without cameras”; the camera loss is off."
        )
    return f"Camera ids were used in {' and in '.join(used)}."


def _start(run: Run) -> str:
    backbone, weights = (run.option(f"model.network.{name}") for name in ("backbone", "weights"))
    if backbone is None:
        return ""
    if weights in (None, "pretrained"):
        return f"{'Published' if weights else 'Random'} weights of {backbone}."
    return (
        f"{backbone} with the weights of {weights}. If they were trained on identities, even of "
        "other people, the result is not label-free as a whole."
    )


def _data(run: Run) -> str:
    data = run.known("data")
    if not data:
        kind = run.kind("data.dataset")
        return f"{kind}." if kind else ""
    train, query, gallery, persons, cameras = (
        f"{value:,}" if isinstance(value := data.get(name), int) else _plain(value)
        for name in (
            *(f"{part} images" for part in ("training", "query", "gallery")),
            *(f"{ids} known of training images" for ids in ("identities", "cameras")),
        )
    )
    return (
        f"{data.get('data set')}: {train} training images (identities known: {persons}, "
        f"cameras known: {cameras}), {query} query and {gallery} gallery images."
    )


def _evaluation(run: Run) -> str:
    if not run.evaluations:
        return "None: there is no mAP in this run."
    # Runs that do not say had no choice.
    features = run.summary.get("features") or run.option("evaluation.test_features") or "global"
    reranking = run.summary.get("reranking") or run.option("evaluation.rerank")
    details = ""
    if isinstance(reranking, dict):
        options = ", ".join(f"{name} {value}" for name, value in reranking.items())
        details = f"; re-ranked beside it ({options})"
    elif reranking is not None:
        details = "; re-ranked beside it" if reranking else "; no re-ranking"
    when = "" if run.evaluations[0]["epoch"] < 0 else " Not evaluated before training."
    same_camera = run.summary.get("same_camera") or run.option("evaluation.same_camera")
    cameras = "counted, too" if same_camera else "left out"
    protocol = str(run.summary.get("protocol") or run.option("evaluation.protocol") or "standard")
    if protocol != "standard":
        details += f"; protocol: {protocol}"
    if clothes := run.summary.get("clothes") or run.option("evaluation.clothes"):
        details += f"; clothes: {clothes}"
    if tracklets := run.summary.get("tracklets"):
        details += f"; tracklets: {tracklets}"
    if variant := run.summary.get("variant"):
        details += f"; {variant}"
    return (
        f"Query to gallery, the same camera's images {cameras}; compared by the features: "
        f"{features}{details}.{when}"
    )


def _length(run: Run) -> str:
    if not run.epochs:
        return "No epoch was trained."
    planned = run.option("trainer.max_epochs")
    of = f" of {planned}" if isinstance(planned, int) and planned >= 0 else ""
    steps = max((row.get("step", 0.0) for row in run.epochs), default=0.0)
    seconds = run_seconds(run)
    return (
        f"{run.finished}{of} epochs finished"
        + (f", {steps:,.0f} steps" if steps else "")
        + (f", {duration(seconds)} in all." if seconds else ".")
    )


def _machine(run: Run) -> str:
    hardware = run.known("hardware")
    if not hardware:
        return ""
    count = hardware.get("processes", 1)
    device = hardware.get("device")
    name = hardware.get("cpu") if device == "cpu" else device
    processes = "1 process" if count == 1 else f"{count} processes"
    return f"{processes} on {name}, precision {hardware.get('precision')}."


def run_seconds(run: Run) -> float:
    """Adds up the seconds of all stages that were measured, in all parts of the run."""
    return sum(sum(working_times(row).values()) for row in run.rows)


def duration(seconds: float) -> str:
    """Writes a time as people say it."""
    if seconds < 0.01:
        return "< 0.01 s"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields nested values by dotted name, as text, in their order.

    It leaves out `init_args`, as a user does who types the name of an option.
    """
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from flatten(value, prefix if key == "init_args" else f"{name}.")
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            numbered = {str(number): item for number, item in enumerate(value)}
            yield from flatten(numbered, f"{name}.")
        else:
            yield name, _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def without_home(text: str) -> str:
    """Replaces the home folders that a text names by `~`."""
    return HOME.sub("~", text)
