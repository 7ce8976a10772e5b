"""What to try next: rules on measured values, each stated beside what it found."""

from __future__ import annotations

from typing import NamedTuple

from pplr_lightning.report.history import LARGEST, working_times
from pplr_lightning.report.reading import Run

OUTLIERS = 0.4
AGREEMENT = 0.2
PAIRS = 0.5
FALL = 0.02
RISE = 0.01


class Advice(NamedTuple):
    """A finding, what to try, and the rule by which it was found."""

    finding: str
    attempt: str
    rule: str


def advise(run: Run) -> list[Advice]:
    """Applies every rule to a run; the most urgent first."""
    found = [
        *_length(run),
        *_labels(run),
        *_truth(run),
        *_retrieval(run),
        *_start(run),
        *_time(run),
    ]
    return found


def is_clustered(run: Run) -> bool:
    """Tells whether the labels are clusters, rather than identities or no labels at all."""
    return bool(run.labelings) and run.option("pseudo_labels.source") != "identities"


def _length(run: Run) -> list[Advice]:
    planned = _number(run, "trainer.max_epochs")
    if run.finished >= planned:
        return []
    return [
        Advice(
            f"The run ended after {run.finished} of {planned:.0f} epochs.",
            "If that was not meant, go on from its newest checkpoint: the same command with "
            "--ckpt_path last.",
            "fewer epochs finished than trainer.max_epochs",
        )
    ]


def _labels(run: Run) -> list[Advice]:
    if not is_clustered(run):
        return []
    row, found = run.labelings[-1], []
    clusters, outliers = row["labels/clusters"], row.get("labels/outliers", 0.0)
    eps, samples = (_now(run, f"pseudo_labels.{name}") for name in ("eps", "min_samples"))
    wider = f"Raise {eps} by 0.05, or lower {samples}."
    if outliers > OUTLIERS:
        found.append(
            Advice(
                f"{100 * outliers:.0f} % of the images are outliers and were not trained on.",
                wider,
                f"outliers above {100 * OUTLIERS:.0f} % in the last epoch",
            )
        )
    places = _number(run, "data.batch_size") / max(_number(run, "data.instances"), 1)
    if clusters < places:
        found.append(
            Advice(
                f"{clusters:.0f} clusters are fewer than the {places:.0f} of a batch, in "
                "which they are repeated.",
                wider
                if outliers > OUTLIERS
                else f"Few outliers and few clusters: people have merged. Lower {eps} by 0.05, or "
                f"{_now(run, 'pseudo_labels.k1')}.",
                "fewer clusters in the last epoch than data.batch_size / data.instances",
            )
        )
    if clusters == run.option("model.max_clusters"):
        found.append(
            Advice(
                f"The model has rows for {clusters:.0f} clusters only; the smallest were left out.",
                f"Raise {_now(run, 'model.max_clusters')}.",
                "as many clusters in the last epoch as model.max_clusters",
            )
        )
    agreement = row.get("labels/agreement_mean", 1.0)
    if agreement < AGREEMENT:
        found.append(
            Advice(
                f"Global and part features share {100 * agreement:.0f} % of their neighbours, so "
                "the parts say little about the labels.",
                "Start from better features (model.warm_start, or model.pretrained), or give the "
                f"parts more to see: lower {_now(run, 'model.num_parts')} or enlarge "
                f"{_now(run, 'data.image_size')}.",
                f"mean agreement below {AGREEMENT} in the last epoch",
            )
        )
    return found


def _truth(run: Run) -> list[Advice]:
    """Compares with the identities, where they are known."""
    if not is_clustered(run):
        return []
    row, eps = run.labelings[-1], _now(run, "pseudo_labels.eps")
    warning = " Found with the identities: a choice made by it is not label-free."
    found = []
    if row.get("labels/precision", 1.0) < PAIRS:
        found.append(
            Advice(
                f"Of the pairs in one cluster {100 * row['labels/precision']:.0f} % are one "
                "person: clusters mix people.",
                f"Lower {eps} by 0.05." + warning,
                f"precision of pairs below {100 * PAIRS:.0f} % in the last epoch",
            )
        )
    if row.get("labels/recall", 1.0) < PAIRS:
        found.append(
            Advice(
                f"Of the pairs of one person {100 * row['labels/recall']:.0f} % share a cluster: "
                "people are split.",
                f"Raise {eps} by 0.05." + warning,
                f"recall of pairs below {100 * PAIRS:.0f} % in the last epoch",
            )
        )
    return found


def _retrieval(run: Run) -> list[Advice]:
    values = [row["val/mAP"] for row in run.evaluations]
    if not values:
        return [
            Advice(
                "The run was not evaluated, so how well it retrieves is not known.",
                "Give the data set labelled query and gallery images; a few hundred tell much.",
                "no evaluation in the history",
            )
        ]
    found = []
    first, best, last = values[0], max(values), values[-1]
    if last < first:
        found.append(
            Advice(
                f"Training made retrieval worse: mAP {100 * first:.1f} % at first, "
                f"{100 * last:.1f} % at the end.",
                f"Lower {_now(run, 'model.lr')}, and look at the labels: outliers, clusters and "
                f"{_now(run, 'pseudo_labels.eps')}.",
                "the last mAP below the first",
            )
        )
    elif best - last > FALL:
        found.append(
            Advice(
                f"mAP has fallen by {100 * (best - last):.1f} points since its best.",
                f"Lower the learning rate earlier: {_now(run, 'model.lr_step')}. Or train for "
                f"fewer epochs: {_now(run, 'trainer.max_epochs')}.",
                f"the last mAP more than {100 * FALL:.0f} points below the best",
            )
        )
    elif len(values) > 1 and last == best and last - values[-2] > RISE:
        found.append(
            Advice(
                f"mAP was still rising: {100 * (last - values[-2]):.1f} points since the "
                "evaluation before.",
                f"Train longer: raise {_now(run, 'trainer.max_epochs')}, and "
                f"{_now(run, 'model.lr_step')} with it.",
                f"the last mAP is the best, by more than {100 * RISE:.0f} point",
            )
        )
    return found


def _start(run: Run) -> list[Advice]:
    model = run.option("model")
    if not isinstance(model, dict) or not is_clustered(run):
        return []
    if any(model.get(name) for name in ("pretrained", "warm_start", "backbone_weights")):
        return []
    return [
        Advice(
            "The run started from random weights, whose clusters say little about people.",
            "Set model.pretrained: true, or model.warm_start to a checkpoint of this library.",
            "model.pretrained is false and there is no model.warm_start",
        )
    ]


def _time(run: Run) -> list[Advice]:
    times = [working_times(row) for row in run.epochs]
    labels, training = (sum(row[name] for row in times) for name in ("labels", "training"))
    if not 0 < training < labels:
        return []
    return [
        Advice(
            f"Labelling took longer than training, {labels / training:.1f} times as long.",
            "See under Time which stage it is. Extraction: raise data.eval_batch_size, or "
            "data.num_workers where data.cache is none. Neighbours and agreement: install FAISS, "
            "or set pseudo_labels.index: ivf for 50,000 images and more.",
            "more seconds for labels than for training",
        )
    ]


def _number(run: Run, option: str) -> float:
    """Returns an option that should be a number, 0 where it is none."""
    value = run.option(option)
    return float(value) if isinstance(value, (int, float)) and abs(value) <= LARGEST else 0.0


def _now(run: Run, option: str) -> str:
    """Names an option with its value in this run."""
    value = run.option(option)
    return option if value is None else f"{option} (now {value})"
