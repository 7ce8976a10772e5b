"""The model card of a shared model: what it was trained on, what it reached, what it is for."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from omegaconf import OmegaConf

from pplr_lightning import data as readers
from pplr_lightning.data.datasets import PublishedDataset
from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.networks.part_network import PRETRAINED

TEXT = """\
---
{header}
---

# Person re-identification with {backbone}

This model turns the image of a person into a feature, by which images of the same person are found
in other cameras. It was trained by `{method}` of `{package}`: {about}

```python
from {package} import {method}

module = {method}.from_pretrained("...")  # the name of this repository, or a folder
features = module(images)  # images (B, 3, height, width) -> (B, {num_features}), L2-normalised
```

## Training

{training}

All options are in `config.json`. What serves training alone, such as classifiers, is left out.

## Results

{results}

## Intended use

Research on representation learning, and retrieval in images that the user may lawfully process,
with the people's consent or another legal basis.

## Misuse and limits

Re-identification follows people through cameras, mostly without their knowledge. The model is not
for identifying individuals, for covert or mass surveillance, or for decisions about people. A match
is a similarity and no proof. Errors are more frequent on images unlike those of the training, and
not spread evenly over groups of people.

## Licence

Of the weights: {license}. The terms of the training images hold beside it.
"""
# Of the labelers that find no pseudo labels.
LABELS = {
    "Instances": "every image a class of its own, no identities",
    "Identities": "true identities: supervised, not label-free",
}
NOT_STATED = "not stated"


def write_card(
    header: dict[str, Any], module: Any, *, run: Path | None = None, data: str | None = None
) -> ModelCard:
    """Writes a model card; what is not known it calls "not stated".

    Args:
        header: Its metadata; `license` is among them.
        module: The `ReIDModule` that is shared.
        run: Folder of the run that trained it, for data, labels, camera ids, start and results.
        data: What it was trained on, if in other words than the run's config.

    Raises:
        FileNotFoundError: `run` is no folder of a run.
    """
    config = None if run is None else _read_config(run)
    facts = {
        "Images": data or _images(config),
        "Size and colours": _preprocessing(module.preprocessing),
        "Labels": _labels(config),
        "Setting": _cameras(config, module.options.get("camera_weight")),
        "Start": _start(config, module.options["network"]["init_args"].get("weights")),
    }
    method = type(module)
    is_own = method.__module__.startswith("pplr_lightning.")
    return ModelCard(
        TEXT.format(
            header=ModelCardData(**header).to_yaml(),
            backbone=module.network.backbone_name,
            method=method.__name__,
            package="pplr_lightning" if is_own else method.__module__,
            about=(inspect.getdoc(method) or "").partition("\n")[0],
            num_features=module.network.num_features,
            training="\n".join(f"- {name}: {fact}" for name, fact in facts.items()),
            results=_results(run),
            license=header["license"],
        )
    )


def _read_config(run: Path) -> Any:
    file = run / "config.yaml"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file; give as run the folder that a run made, such as "
            "runs/market1501/version_0"
        )
    return OmegaConf.load(file)


def _images(config: Any) -> str:
    if config is None:
        return NOT_STATED
    return _name(config.data.dataset or {"class_path": "SyntheticReID"})


def _name(dataset: dict[str, Any]) -> str:
    """Names a data set and its terms, but not the folder it lies in."""
    name = dataset["class_path"].rpartition(".")[2]
    if name == "Joined":
        return "; ".join(map(_name, dataset["init_args"]["datasets"]))
    reader = getattr(readers, name, None)
    if not (isinstance(reader, type) and issubclass(reader, PublishedDataset)):
        return f"`{name}`"
    terms = [text for text in (reader.licence, reader.withdrawn) if text]
    return reader.name + (f" ({'; '.join(terms)})" if terms else "")


def _preprocessing(made_with: Preprocessing | None) -> str:
    if made_with is None:
        return NOT_STATED
    (height, width), mean, std = made_with
    return (
        f"{height} x {width} (height, width), RGB in [0, 1], then minus {list(mean)}, divided by "
        f"{list(std)}"
    )


def _labeler(config: Any) -> str:
    """Names the labeler of a run, which is the paper's where the config names none."""
    default = "pplr_lightning.labelers.DBSCAN"
    return str(OmegaConf.select(config, "pseudo_labels.labeler.class_path", default=default))


def _labels(config: Any) -> str:
    if config is None:
        return NOT_STATED
    package, _, name = _labeler(config).rpartition(".")
    if not package.startswith("pplr_lightning"):
        return f"of `{name}`"
    return LABELS.get(name, f"pseudo labels of `{name}`, no identities")


def _cameras(config: Any, weight: float | None) -> str:
    uses = [f"of weight {weight} in the loss"] if weight else []
    if config is not None and _labeler(config).endswith("CameraDBSCAN"):
        uses.append("in the labels")
    setting = f"with cameras, {' and '.join(uses)}" if uses else "without cameras"
    if config is None:
        return setting
    use = "prefer" if config.data.use_cameras else "do not prefer"
    return f"{setting}; batches {use} images of other cameras"


def _start(config: Any, own: str | None) -> str:
    """Says from which weights the training started.

    A module that was loaded does not know, but its run does.
    """
    name = "model.init_args.network.init_args.weights"
    weights = own if config is None else OmegaConf.select(config, name, default=PRETRAINED)
    if weights == PRETRAINED:
        return "the backbone's published weights"
    if weights is None:
        return NOT_STATED if config is None else "random weights"
    return "the weights of a file (`network.weights`)"


def _results(run: Path | None) -> str:
    """Makes a table of the first, best and last evaluation, and says how they came about."""
    file = None if run is None else run / "summary.json"
    if file is None or not file.is_file():
        return "Not stated."
    summary = json.loads(file.read_text(encoding="utf-8"))
    names = [name for name in summary["last"] if name != "epoch"]
    lines = [f"| | epoch | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for row in ("first", "best", "last"):
        values = summary[row]
        epoch = "before training" if values["epoch"] < 0 else values["epoch"]
        figures = [f"{100 * values[name]:.1f}" if name in values else "" for name in names]
        lines.append(f"| {row} | {epoch} | {' | '.join(figures)} |")
    features = summary.get("features", "global")  # runs that do not say had no choice
    lines += [
        "",
        f"In %; images are compared by: {features} features; `rerank/`: the gallery re-ranked. "
        "Best is best on the evaluation set itself and so no result: the last is.",
    ]
    return "\n".join(lines)
