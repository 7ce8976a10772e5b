"""The model card of a shared model: what it was trained on, what it reached, what it is for."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from pplr_lightning import data as readers
from pplr_lightning.data.datasets import PublishedDataset
from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.report.reading import LABELER, Run, read_run
from pplr_lightning.report.setting import describe_setting, without_home
from pplr_lightning.report.tables import results

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
NOT_STATED = "not stated"


def write_card(
    header: dict[str, Any], module: Any, *, run: Path | None = None, data: str | None = None
) -> ModelCard:
    """Writes a model card; what is not known it calls "not stated".

    Args:
        header: Its metadata; `license` is among them.
        module: The `ReIDModule` that is shared.
        run: As of `HubMixin.generate_model_card`.
        data: Likewise.
    """
    read = _of_module(module) if run is None else _read(run)
    weights = str(read.option("model.network.weights"))
    told = {  # where the weights lie is nobody's business
        topic: without_home(text.replace(weights, Path(weights).name))
        for topic, text in describe_setting(read)
    }
    labeler = str(read.option(f"{LABELER}.class_path") or "pplr_lightning.DBSCAN")
    if not labeler.startswith("pplr_lightning."):  # its options may be anybody's files
        told["Labels"] = f"Labeler: {read.kind(LABELER)}."
    facts = {
        "Images": data
        or (_name(read.option("data.dataset")) if read.option("data") else NOT_STATED),
        "Size and colours": _preprocessing(module.preprocessing),
        **{topic: told.get(topic, NOT_STATED) for topic in ("Labels", "Cameras", "Start")},
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
            results=_results(read, told["Evaluation"]),
            license=header["license"],
        )
    )


def _read(folder: Path) -> Run:
    run = read_run(folder)
    if not run.config:
        raise FileNotFoundError(
            f"{folder / 'config.yaml'}: no such file, or none that can be read; give as run the "
            "folder that a run made, such as runs/market1501/version_0"
        )
    return run


def _of_module(module: Any) -> Run:
    """Says what a module knows without its run; one that was loaded does not know its start."""
    options = dict(module.options)
    if options["network"]["init_args"].get("weights") is None:
        options["network"] = {}
    return Run(name="", rows=[], config={"model": {"init_args": options}})


def _name(dataset: dict[str, Any] | None) -> str:
    """Names a data set and its terms, but not the folder it lies in."""
    if dataset is None:
        return "SyntheticReID"  # the default
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


def _results(run: Run, how: str) -> str:
    """Writes the report's table of the evaluations in Markdown, and how they came about."""
    table = results(run)
    if table is None:
        return "Not stated."
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        f"{lines}\n\n{how} Best is best on the evaluation set itself and so no result: the last is."
    )
