"""What to try next: rules on measured values, each stated beside what it found."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from pplr_lightning.report.history import Row, as_number, first_best_last, working_times
from pplr_lightning.report.reading import LABELER, Run

OUTLIERS = 0.4
AGREEMENT = 0.2
DISAGREEMENT = 0.1
PAIRS = 0.5
FALL = 0.02
RISE = 0.01
GROWTH = 0.1
SWALLOWED = 0.5
SPANNING = 0.25
TIMES = 4
# What to change of a labeler, where it has such an option.
WIDER = {"eps": "raise {} by 0.05", "min_samples": "lower {}", "k1": "lower {}"}
NARROWER = {"eps": "lower {} by 0.05", "k1": "lower {}"}


class Advice(NamedTuple):
    """A finding, what to try, and the rule by which it was found."""

    finding: str
    attempt: str
    rule: str


def advise(run: Run) -> list[Advice]:
    """Applies every rule to a run; the most urgent first."""
    labelled = [_clusters, _labels] if run.labelings else []
    rules = [*([_start] if labelled else []), _length, *labelled, _retrieval, _time]
    return [advice for rule in rules for advice in rule(run)]


def _length(run: Run) -> Iterator[Advice]:
    planned = run.number("trainer.max_epochs")
    if run.finished < planned:
        yield Advice(
            f"The run ended after {run.finished} of {planned:.0f} epochs.",
            "If that was not meant, go on from its newest checkpoint: the same command with "
            "--ckpt_path last.",
            "fewer epochs finished than trainer.max_epochs",
        )


def _clusters(run: Run) -> Iterator[Advice]:
    """Judges whether clusters are too narrow or too wide, and turns them one way only."""
    row, found = run.labelings[-1], []
    clusters, outliers = row["labels/clusters"], row.get("labels/outliers", 0.0)
    precision, recall = (row.get(f"labels/{name}", 1.0) for name in ("precision", "recall"))
    if outliers > OUTLIERS:
        finding = f"{100 * outliers:.0f} % of the images are outliers and were not trained on."
        found.append((finding, f"outliers above {100 * OUTLIERS:.0f} %", WIDER))
    shares = [one["labels/outliers"] for one in run.labelings if "labels/outliers" in one]
    rises = all(before < after for before, after in itertools.pairwise(shares))
    if len(shares) > 2 and rises and shares[-1] - shares[0] > GROWTH:
        finding = (
            f"Outliers have risen in every epoch, from {100 * shares[0]:.0f} % to "
            f"{100 * shares[-1]:.0f} % of the images: training drives them apart, and each epoch "
            "learns from fewer. Do not go on with this run: more epochs will not turn that."
        )
        rule = (
            f"outliers risen from labelling to labelling, by more than {100 * GROWTH:.0f} points,"
        )
        found.append((finding, rule, WIDER))
    largest = row.get("labels/largest", 0.0)
    if largest > SWALLOWED:
        finding = f"One cluster holds {100 * largest:.0f} % of the images: people have merged."
        found.append(
            (finding, f"a cluster of more than {100 * SWALLOWED:.0f} % of the images", NARROWER)
        )
    places = run.number("data.batch_size") / max(run.number("data.instances"), 1)
    apart = any(change is WIDER for _, _, change in found)
    if clusters < places:
        merged = "" if apart else ": with so few outliers, people have merged"
        finding = (
            f"{clusters:.0f} clusters are fewer than the {places:.0f} of a batch, in which they "
            f"are repeated{merged}."
        )
        rule = "fewer clusters than data.batch_size / data.instances"
        found.append((finding, rule, WIDER if apart else NARROWER))
    told = run.number(f"{LABELER}.images_per_person")
    if told and not found:
        found += _sizes(run, row, told)
    unsupervised = len(found)  # of which the identities know nothing
    if not told and not found:
        found += _sizes(run, row, _images_per_person(run))
    if precision < PAIRS:
        finding = f"Of the pairs in one cluster {100 * precision:.0f} % are one person."
        found.append((finding, f"precision of pairs below {100 * PAIRS:.0f} %", NARROWER))
    if recall < PAIRS:
        finding = f"Of the pairs of one person {100 * recall:.0f} % share a cluster."
        found.append((finding, f"recall of pairs below {100 * PAIRS:.0f} %", WIDER))
    attempt = _turn(run, [change for _, _, change in found])
    warning = " Found with the identities: a choice made by it is not label-free."
    for place, (finding, rule, _) in enumerate(found):
        whole = attempt if place < unsupervised else attempt + warning
        yield Advice(finding, whole, f"{rule} in the last epoch")


def _sizes(run: Run, row: Row, expected: float) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Compares the clusters with what a person has, where that is known."""
    images, size = as_number(run.known("data").get("training images")), _images_per_cluster(run)
    if "labels/singles" in row or not expected or not size:
        return
    if not expected / TIMES <= size <= expected * TIMES:
        finding = (
            f"{row['labels/clusters']:.0f} clusters are far from the {images / expected:.0f} "
            f"people that {expected:.0f} images each make of {images:.0f}: a cluster has "
            f"{size:.1f} on average."
        )
        rule = f"images per cluster {TIMES} times more or fewer than per person"
        yield finding, rule, NARROWER if size > expected else WIDER


def _turn(run: Run, changes: list[dict[str, str]]) -> str:
    """Says how the labeler's own options make clusters wider or narrower."""
    if WIDER in changes and NARROWER in changes:
        return (
            "Clusters are too wide and too narrow at once, which no option of the labeler mends: "
            f"start from better features ({_now(run, 'model.network.weights')})."
        )
    k1 = _labeler_number(run, "k1")
    size = run.number(f"{LABELER}.images_per_person") or _images_per_person(run)
    small = WIDER in changes and 0 < k1 < size / 2
    steps = [
        step.format(_now(run, f"{LABELER}.{name}"))
        for change in changes[:1]
        for name, step in change.items()
        if run.option(f"{LABELER}.{name}") is not None and not (small and name == "k1")
    ]
    told = ", or ".join(steps) or f"try other options of {LABELER}"
    first = ""
    if k1 > size > 0:
        first = (
            f" Begin with k1: {k1:.0f} neighbours are more than the {size:.0f} images that a "
            "person has on average, so that other people are always among them. Set it to "
            f"{max(size, 2):.0f} or below."
        )
    elif small:
        first = (
            f" Begin with k1: {k1:.0f} neighbours are few of the {size:.0f} images that a person "
            f"has on average; set it to {size / 2:.0f} to {size:.0f}."
        )
    hint = f"{LABELER}.images_per_person"
    if run.option(f"{LABELER}.k1") == "auto" and not run.number(hint):
        first += f" What is auto goes by {hint}, if you know or guess it."
    return f"{told[0].upper()}{told[1:]}.{first}"


def _images_per_person(run: Run) -> float:
    """Averages the training images of a person; 0 where the number of people is not known."""
    names = ("training images", "identities known of training images")
    images, persons = (as_number(run.known("data").get(name)) for name in names)
    return images / persons if persons else 0.0


def _images_per_cluster(run: Run) -> float:
    """Averages the clustered images of the last epoch; 0 where their number is not known."""
    row = run.labelings[-1]
    clustered = 1 - row.get("labels/outliers", 0.0)
    images = as_number(run.known("data").get("training images"))
    return images * clustered / max(row["labels/clusters"], 1)


def _labeler_number(run: Run, name: str) -> float:
    """Returns an option of the labeler; where it is auto, what was chosen last."""
    return run.number(f"{LABELER}.{name}") or run.labelings[-1].get(f"labels/{name}", 0.0)


def _labels(run: Run) -> Iterator[Advice]:
    row = run.labelings[-1]
    clusters, agreement = row["labels/clusters"], row.get("labels/agreement_mean", 1.0)
    if clusters == run.option("model.max_clusters"):
        yield Advice(
            f"The model has rows for {clusters:.0f} clusters only; the smallest were left out.",
            f"Raise {_now(run, 'model.max_clusters')}.",
            "as many clusters in the last epoch as model.max_clusters",
        )
    if agreement < AGREEMENT:
        yield Advice(
            f"Global and part features share {100 * agreement:.0f} % of their neighbours, so the "
            "parts say little about the labels.",
            f"Start from better features ({_now(run, 'model.network.weights')}), or give the parts "
            f"more to see: lower {_now(run, 'model.network.num_parts')} or enlarge "
            f"{_now(run, 'data.image_size')}.",
            f"mean agreement below {AGREEMENT} in the last epoch",
        )
    if run.kind(LABELER) != "CameraLinkage":  # whose clusters are of one camera every other time
        yield from _cameras(row)
    if not any(_clusters(run)):  # which may ask for the opposite
        yield from _copies(run, row)
    yield from _smoothing(run)


def _cameras(row: Row) -> Iterator[Advice]:
    across = row.get("labels/across_cameras", 1.0)
    if across < SPANNING:
        yield Advice(
            f"Of the clustered images {100 * across:.0f} % are in clusters of several cameras: "
            "most clusters are of one camera, perhaps of its background.",
            "Look at the clusters. If people do pass several cameras, have cameras told apart: "
            "pseudo_labels.labeler CameraDBSCAN, or model.camera_weight (docs/recipes.md).",
            f"fewer than {100 * SPANNING:.0f} % of the clustered images in clusters of several "
            "cameras in the last epoch",
        )


def _copies(run: Run, row: Row) -> Iterator[Advice]:
    """Finds clusters so small that a batch shows nothing but what they were made of."""
    size, instances = _images_per_cluster(run), run.number("data.instances")
    if 0 < size <= instances and "labels/singles" not in row:
        yield Advice(
            f"A cluster has {size:.1f} images on average, no more than the {instances:.0f} that a "
            "batch takes of it: often near copies of one image, which teach little.",
            f"Raise {_now(run, f'{LABELER}.min_samples')} or {_now(run, f'{LABELER}.k1')}; "
            "`pplr labels` shows what each gives.",
            "no more clustered images per cluster than data.instances in the last epoch",
        )


def _smoothing(run: Run) -> Iterator[Advice]:
    """Looks at what AALS, where it is on, does to the agreement that it goes by."""
    name, begin = "labels/agreement_mean", run.number("model.aals_start_epoch")
    rows = {row["epoch"]: row[name] for row in run.labelings if name in row}
    # The labels of the epoch in which it begins are made before it has changed anything.
    later = {epoch: value for epoch, value in rows.items() if epoch > begin}
    if run.option("model.aals") is not True or begin not in rows or not later:
        return
    lowest = min(later, key=lambda epoch: later[epoch])
    if rows[begin] - later[lowest] > DISAGREEMENT:
        yield Advice(
            f"Since AALS began in epoch {begin:.0f}, global and part features agree less: on "
            f"{100 * later[lowest]:.0f} % of their neighbours in epoch {lowest:.0f}, before on "
            f"{100 * rows[begin]:.0f} %. Parts that disagree are told less of the labels, and may "
            "then disagree more.",
            "Compare with a run without either refinement, model.aals false and model.pglr false: "
            "of what was measured (docs/benchmarks.md), now the one was ahead, now the other. "
            "model.aals_agreement relative smooths less.",
            f"mean agreement more than {DISAGREEMENT} below that of the epoch in which AALS began",
        )


def _start(run: Run) -> Iterator[Advice]:
    network = run.option("model.network.init_args")
    if isinstance(network, dict) and network.get("weights", "") is None:
        yield Advice(
            "The run started from random weights, whose clusters say little about people.",
            "Set model.network.weights to pretrained or to a checkpoint; configs/simclr.yaml "
            "trains one without labels.",
            "model.network.weights is null",
        )


def _retrieval(run: Run) -> Iterator[Advice]:
    values = [row["val/mAP"] for row in run.evaluations]
    if not values:
        yield Advice(
            "The run was not evaluated, so how well it retrieves is not known.",
            "Give the data set labelled query and gallery images; a few hundred tell much.",
            "no evaluation in the history",
        )
        return
    first, best, last = (row["val/mAP"] for row in first_best_last(run.evaluations).values())
    epochs, step = _now(run, "trainer.max_epochs"), "lr_scheduler.step_size"
    schedule = "lr_scheduler" if run.option(step) is None else _now(run, step)
    if last < first:
        yield Advice(
            f"Training made retrieval worse: mAP {100 * first:.1f} % at first, {100 * last:.1f} % "
            "at the end.",
            f"Lower {_now(run, 'optimizer.lr')}, and look at the labels.",
            "the last mAP below the first",
        )
    elif best - last > FALL:
        yield Advice(
            f"mAP has fallen by {100 * (best - last):.1f} points since its best.",
            f"Lower the learning rate earlier: {schedule}. Or train for fewer epochs: {epochs}.",
            f"the last mAP more than {100 * FALL:.0f} points below the best",
        )
    elif len(values) > 1 and last == best and last - values[-2] > RISE:
        yield Advice(
            f"mAP was still rising: {100 * (last - values[-2]):.1f} points since the evaluation "
            "before.",
            f"Train longer: raise {epochs}, and {schedule} with it.",
            f"the last mAP is the best, by more than {100 * RISE:.0f} point",
        )


def _time(run: Run) -> Iterator[Advice]:
    times = [working_times(row) for row in run.epochs]
    labels, training = (sum(row[name] for row in times) for name in ("labels", "training"))
    if 0 < training < labels:
        yield Advice(
            f"Labelling took longer than training, {labels / training:.1f} times as long.",
            "See under Time which stage it is. Extraction: raise data.eval_batch_size, or "
            "data.num_workers where data.cache is none. Neighbours and agreement: install FAISS, "
            "or set pseudo_labels.index: ivf for 50,000 images and more.",
            "more seconds for labels than for training",
        )


def _now(run: Run, option: str) -> str:
    """Names an option with its value in this run."""
    value = run.option(option)
    chosen = run.labelings[-1] if run.labelings and value == "auto" else {}
    if f"labels/{option.rpartition('.')[2]}" in chosen:
        value = f"auto, {chosen['labels/' + option.rpartition('.')[2]]:g}"
    return option if value is None else f"{option} (now {value})"
