"""The model card of a shared model: what it was trained on, what it reached, what it is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from huggingface_hub import ModelCard, ModelCardData
from omegaconf import OmegaConf

from pplr_lightning import data as readers
from pplr_lightning.data.published import PublishedDataset
from pplr_lightning.data.transforms import MEAN, STD

TEXT = """\
---
{header}
---

# Person re-identification with {backbone}

This model turns the image of a person into a feature, by which images of the same person are found
in other cameras. It was trained with Part-based Pseudo Label Refinement
([PPLR; Cho et al., CVPR 2022](https://arxiv.org/abs/2203.14675)) in `pplr_lightning`.

```python
from pplr_lightning import PPLRModule

module = PPLRModule.from_pretrained("...")  # the name of this repository, or a folder
features = module(images)  # images (B, 3, height, width) -> (B, {num_features}), L2-normalised
```

## Training

{training}

All options are in `config.json`. The classifiers are left out: they tell apart the clusters of the
run's last epoch.

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


def write_card(
    header: dict[str, Any],
    *,
    options: dict[str, Any],
    num_features: int,
    run: Path | None = None,
    data: str | None = None,
) -> ModelCard:
    """Writes a model card; what is not known it calls "not stated".

    Args:
        header: Its metadata; `license` is among them.
        options: Of the module.
        num_features: Width of a feature.
        run: Folder of the run that trained the model, for data, labels, camera ids and results.
        data: What it was trained on, if in other words than the run's config.

    Raises:
        FileNotFoundError: `run` is no folder of a run.
    """
    config = {} if run is None else _read_config(run)
    facts = {
        "Images": data or _images(config),
        "Size and colours": _preprocessing(config),
        "Labels": _labels(config),
        "Setting": _cameras(config, options),
        "Start": _start(options),
    }
    return ModelCard(
        TEXT.format(
            header=ModelCardData(**header).to_yaml(),
            backbone=options["backbone"],
            num_features=num_features,
            training="\n".join(f"- {name}: {fact}" for name, fact in facts.items()),
            results=_results(run),
            license=header["license"],
        )
    )


def _read_config(run: Path) -> dict[str, Any]:
    file = run / "config.yaml"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file; give as run the folder that a run made, such as "
            "runs/market1501/version_0"
        )
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(file)))


def _images(config: dict[str, Any]) -> str:
    if not config:
        return "not stated"
    return _name(config["data"]["dataset"] or {"class_path": "SyntheticReID"})


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


def _preprocessing(config: dict[str, Any]) -> str:
    if not config:
        return "not stated"
    height, width = config["data"]["image_size"]
    mean, std = (config["data"].get(*pair) for pair in (("mean", MEAN), ("std", STD)))
    return (
        f"{height} x {width} (height, width), RGB in [0, 1], then minus {list(mean)}, divided by "
        f"{list(std)}"
    )


def _labels(config: dict[str, Any]) -> str:
    source = config.get("pseudo_labels", {}).get("source")
    return {
        "clusters": "pseudo labels, no identities",
        "identities": "true identities: supervised, not label-free",
    }.get(source, "not stated")


def _cameras(config: dict[str, Any], options: dict[str, Any]) -> str:
    weight = options.get("camera_weight", 0.0)
    setting = f"with cameras, of weight {weight} in the loss" if weight else "without cameras"
    if not config:
        return setting
    use = "prefer" if config["data"]["use_cameras"] else "do not prefer"
    return f"{setting}; batches {use} images of other cameras"


def _start(options: dict[str, Any]) -> str:
    if options.get("warm_start"):
        return "another checkpoint (`warm_start`)"
    if options.get("backbone_weights"):
        return "backbone weights from elsewhere (`backbone_weights`)"
    return "the backbone's published weights" if options.get("pretrained") else "random weights"


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
