"""Weights from checkpoints of this library and of others, by the names of `PartModel`."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from pplr_lightning.backbone_weights import fit_position_embeddings
from pplr_lightning.checkpoints import differences, read_file
from pplr_lightning.models import PartModel

# A ResNet of torchvision: the one family that the other projects and this library both build.
RESNET = re.compile(
    r"backbone\.(conv1|bn1|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01]))\.\w+"
)
# Prefixes of other projects' names and ours; None: of no use here.
BASE: dict[str, str | None] = {
    "base.0.": "backbone.conv1.",
    "base.1.": "backbone.bn1.",
    **{f"base.{stage + 3}.": f"backbone.layer{stage}." for stage in (1, 2, 3, 4)},
}
CONTRAST = {**BASE, "feat_bn.": "head.neck.", "gap.p": "gem.p", "classifier.": None}
OPENUNREID = {
    "backbone.": "backbone.",
    "head.feat_bn.": "head.neck.",
    "global_pooling.p": "gem.p",
    "classifier.": None,
}
AUTHORS = "the authors of PPLR"


@dataclass(frozen=True)
class Weights:
    """The weights that a checkpoint holds.

    Attributes:
        path: The checkpoint.
        project: Whose it is; None: this library's.
        tensors: Backbone, necks and classifiers, as far as it has them, by `PartModel`'s names.
    """

    path: str
    project: str | None
    tensors: dict[str, Tensor]

    @property
    def num_parts(self) -> int:
        """Parts that have heads; 0 where there is a global branch alone."""
        return _count(self.tensors, "part_heads.{}.neck.weight")

    @property
    def max_clusters(self) -> int | None:
        """Rows of the classifier; None where there is none."""
        classifier = self.tensors.get("head.classifier.weight")
        return None if classifier is None else len(classifier)

    @property
    def pooling(self) -> Literal["avg", "gem"]:
        """How the features were pooled."""
        return "gem" if "gem.p" in self.tensors else "avg"


def read_weights(path: str | Path, *, mmap: bool = False) -> Weights:
    """Reads the weights of a checkpoint of this library or of a project that it knows.

    Args:
        path: The checkpoint.
        mmap: Leave the tensors on disk until they are used.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, it would execute code, or its layout is not known.
    """
    tensors = _unwrap(read_file(path, mmap=mmap))
    own = _below(tensors, "model.")
    if any(name.startswith("backbone.") for name in own):
        return Weights(str(path), None, own)
    if {"base.0.weight", "bnneck.weight"} <= tensors.keys():
        project, names = AUTHORS, official_names(_count(tensors, "bnneck{}.weight"))
    elif {"base.0.weight", "feat_bn.weight"} <= tensors.keys():
        project, names = "Cluster Contrast or SpCL", CONTRAST
    elif {"backbone.conv1.weight", "head.feat_bn.weight"} <= tensors.keys():
        project, names = "OpenUnReID", OPENUNREID
    else:
        first = f"its first tensor is {next(iter(tensors))}" if tensors else "it holds no tensors"
        raise ValueError(
            f"{path}: no weights of this library, of PPLR's authors, Cluster Contrast, SpCL or "
            f"OpenUnReID ({first})"
        )
    here = f"a ResNet of torchvision with a BN neck, as which it is read (checkpoint of {project})"
    return Weights(str(path), project, _rename(tensors, names, path, here))


def official_names(num_parts: int) -> dict[str, str | None]:
    """Pairs the prefixes of the authors' names with ours, in the order of their state dict."""
    heads = {"": "head", **{str(n): f"part_heads.{n}" for n in range(num_parts)}}
    return BASE | {
        f"{theirs}{n}.": f"{ours}.{layer}."
        for n, ours in heads.items()
        for theirs, layer in (("bnneck", "neck"), ("classifier", "classifier"))
    }


def to_official(weights: Weights) -> dict[str, Tensor]:
    """Names this library's weights as the authors' `best.pth` does, `module.` in front.

    Raises:
        ValueError: Their model has no such backbone or pooling.
    """
    pairs = official_names(weights.num_parts).items()
    names: dict[str, str | None] = {str(ours): theirs for theirs, ours in pairs}
    model = "the model of PPLR's authors, a ResNet of torchvision with average pooling"
    renamed = _rename(weights.tensors, names, weights.path, model)
    return {f"module.{name}": tensor for name, tensor in renamed.items()}


def load_weights(model: PartModel, weights: Weights, *, classifiers: bool) -> None:
    """Loads weights into a model; without part heads, their necks start as the global one.

    Args:
        model: Changed in place.
        weights: What `read_weights` gave.
        classifiers: Load these as well if they have as many rows as the model's. They are set from
            the clusters in every epoch, so that training can do without.

    Raises:
        ValueError: The weights are of another backbone, number of parts or pooling.
    """
    tensors, own = dict(weights.tensors), model.state_dict()
    notes = [f"of {weights.project}"] if weights.project else []
    if not weights.num_parts:
        notes.append("the necks of the parts start as the global one")
        neck = {n.removeprefix("head."): t for n, t in tensors.items() if n.startswith("head.neck")}
        for part in range(model.num_parts):
            tensors |= {f"part_heads.{part}.{name}": tensor for name, tensor in neck.items()}
    if not classifiers or weights.max_clusters != model.max_clusters:
        notes.append("without classifiers")
        tensors, own = _without(tensors, ".classifier."), _without(own, ".classifier.")
    resampled = fit_position_embeddings(tensors, model.backbone, "backbone.")
    notes += [resampled] if resampled else []
    strange = differences(tensors, _without(own, "._extra_state"))
    if strange:
        raise ValueError(
            f"{weights.path} does not fit the model: {strange}; {_hint(model, weights)}"
        )
    model.load_state_dict(tensors, strict=False)
    rank_zero_info(f"{len(tensors)} tensors from {weights.path} ({'; '.join(notes)})")


def _hint(model: PartModel, weights: Weights) -> str:
    if weights.pooling != ("avg" if model.gem is None else "gem"):
        return f"set pooling to {weights.pooling}, with which it was trained"
    if weights.num_parts not in (0, model.num_parts):
        return f"set num_parts to {weights.num_parts}, with which it was trained"
    return f"set backbone ({model.backbone_name}) to the one that it was trained with"


def _unwrap(content: Any) -> dict[str, Tensor]:
    """Finds the tensors in what a file held, and takes the wrapping off their names."""
    for key in ("state_dict", "state_dict_1"):  # OpenUnReID numbers its models
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        return {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if all(name.startswith("module.") for name in tensors):  # of DataParallel
        tensors = _below(tensors, "module.")
    if any(name.startswith("mean_net.") for name in tensors):  # the teacher: OpenUnReID tests it
        tensors = _below(tensors, "mean_net.")
    return tensors


def _rename(
    tensors: dict[str, Tensor], names: dict[str, str | None], path: str | Path, model: str
) -> dict[str, Tensor]:
    """Exchanges prefixes of names.

    Raises:
        ValueError: The other model has no place for a tensor.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in names if name.startswith(prefix)), None)
        if prefix is not None and names[prefix] is None:
            continue
        new = "" if prefix is None else f"{names[prefix]}{name.removeprefix(prefix)}"
        in_backbone = [word for word in (name, new) if word.startswith("backbone.")]
        if not new or not all(RESNET.fullmatch(word) for word in in_backbone):
            raise ValueError(f"{path}: {name} has no place in {model}")
        renamed[new] = tensor
    return renamed


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _count(tensors: dict[str, Tensor], name: str) -> int:
    return next(n for n in itertools.count() if name.format(n) not in tensors)


def _without(tensors: dict[str, Any], word: str) -> dict[str, Any]:
    return {name: value for name, value in tensors.items() if word not in name}
