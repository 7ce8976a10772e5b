"""Weights from checkpoints of this library and of others, by this library's names."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from pplr_lightning.weights.backbone_weights import (
    fit_position_embeddings,
    fitting_backbone_weights,
    load_backbone_weights,
    read_tensors,
)
from pplr_lightning.weights.checkpoints import differences, read_file

# A ResNet of torchvision: the one family that the other projects and this library both build.
RESNET = re.compile(
    r"backbone\.(conv1|bn1|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01]))\.\w+"
)
# The same with half of some norms by instance (IBN-Net), which all but PPLR's authors build, too.
RESNET_IBN = re.compile(rf"{RESNET.pattern}|backbone\.layer[1-3]\.\d+\.bn1\.(IN|BN)\.\w+")
# Prefixes of other projects' names and ours; None: of no use here.
BASE: dict[str, str | None] = {
    "base.0.": "backbone.conv1.",
    "base.1.": "backbone.bn1.",
    **{f"base.{stage + 3}.": f"backbone.layer{stage}." for stage in (1, 2, 3, 4)},
}
CONTRAST = {**BASE, "feat_bn.": "neck.", "gap.p": "gem.p", "classifier.": None}
OPENUNREID = {
    "backbone.": "backbone.",
    "head.feat_bn.": "neck.",
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
        tensors: Backbone and necks by `PartNetwork`'s names, and classifiers by `PPLRModule`'s, as
            far as it has them.
    """

    path: str
    project: str | None
    tensors: dict[str, Tensor]

    @property
    def num_parts(self) -> int:
        """Parts that have heads; 0 where there is a global branch alone."""
        return _count(self.tensors, "part_necks.{}.weight")

    @property
    def max_clusters(self) -> int | None:
        """Rows of the classifier; None where there is none."""
        classifier = self.tensors.get("classifier.weight")
        return None if classifier is None else len(classifier)

    @property
    def classifiers(self) -> dict[str, Tensor]:
        """The weights of the classifiers; none where it has none."""
        return {name: tensor for name, tensor in self.tensors.items() if "classifier" in name}

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
    tensors = _read(path, mmap=mmap)
    weights = _recognise(tensors, path)
    if weights is None:
        first = f"its first tensor is {next(iter(tensors))}" if tensors else "it holds no tensors"
        raise ValueError(
            f"{path}: no weights of this library, of PPLR's authors, Cluster Contrast, SpCL or "
            f"OpenUnReID ({first})"
        )
    return weights


def _recognise(tensors: dict[str, Tensor], path: str | Path) -> Weights | None:
    """Finds out by their names whose the tensors are; None where that is not known."""
    own = _below(tensors, "network.")
    if any(name.startswith("backbone.") for name in own):
        classifiers = {n: t for n, t in tensors.items() if re.match(r"(part_)?classifiers?\.", n)}
        return Weights(str(path), None, own | classifiers)
    if {"base.0.weight", "bnneck.weight"} <= tensors.keys():
        project, names = AUTHORS, official_names(_count(tensors, "bnneck{}.weight"))
    elif {"base.0.weight", "base.3.0.conv1.weight"} <= tensors.keys():
        raise ValueError(
            f"{path}: a checkpoint of MMT's authors, whose ResNet has no ReLU between its first "
            "norm and its pooling; no backbone here is without"
        )
    elif {"base.0.weight", "feat_bn.weight"} <= tensors.keys():
        project, names = "Cluster Contrast or SpCL", CONTRAST
    elif {"backbone.conv1.weight", "head.feat_bn.weight"} <= tensors.keys():
        project, names = "OpenUnReID", OPENUNREID
    else:
        return None
    here = f"a ResNet of torchvision with a BN neck, as which it is read (checkpoint of {project})"
    known = RESNET if project == AUTHORS else RESNET_IBN
    return Weights(str(path), project, _rename(tensors, names, path, here, known))


def official_names(num_parts: int) -> dict[str, str | None]:
    """Pairs the prefixes of the authors' names with ours, in the order of their state dict."""
    branches = {"": ("neck", "classifier")} | {
        str(n): (f"part_necks.{n}", f"part_classifiers.{n}") for n in range(num_parts)
    }
    return BASE | {
        f"{theirs}{n}.": f"{ours}."
        for n, names in branches.items()
        for theirs, ours in zip(("bnneck", "classifier"), names, strict=True)
    }


def to_official(weights: Weights) -> dict[str, Tensor]:
    """Names this library's weights as the authors' `best.pth` does, `module.` in front.

    Raises:
        ValueError: Their model has no such backbone or pooling.
    """
    pairs = official_names(weights.num_parts).items()
    names: dict[str, str | None] = {str(ours): theirs for theirs, ours in pairs}
    model = "the model of PPLR's authors, a ResNet of torchvision with average pooling"
    renamed = _rename(weights.tensors, names, weights.path, model, RESNET)
    return {  # in their order
        f"module.{name}": tensor
        for prefix, _ in pairs
        for name, tensor in renamed.items()
        if name.startswith(prefix)
    }


def check_weights_file(network: Any, path: str | Path) -> None:
    """Checks before any work that `load_weights_file` can load a file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, would execute code, or does not fit.
    """
    weights = _find_layout(path, mmap=True)
    if weights is None:
        fitting_backbone_weights(network.backbone, path, mmap=True)
    else:
        _fitting(network, weights)


def load_weights_file(network: Any, path: str | Path) -> str:
    """Loads weights to start from: of a layout that is known, or else those of the backbone alone.

    Args:
        network: A `PartNetwork`, changed in place.
        path: The file.

    Returns:
        A line that says what was loaded.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, would execute code, or does not fit.
    """
    weights = _find_layout(path)
    if weights is None:
        return load_backbone_weights(network.backbone, path)
    return load_weights(network, weights)


def _find_layout(path: str | Path, *, mmap: bool = False) -> Weights | None:
    return _recognise(_read(path, mmap=mmap), path)


def _read(path: str | Path, *, mmap: bool) -> dict[str, Tensor]:
    is_safe = Path(path).suffix == ".safetensors"
    return _unwrap(read_tensors(path) if is_safe else read_file(path, mmap=mmap))


def load_weights(network: Any, weights: Weights) -> str:
    """Loads weights into a network; without part heads, their necks start as the global one.

    Args:
        network: A `PartNetwork`, changed in place.
        weights: What `read_weights` gave; the classifiers are left out.

    Returns:
        A line that says what was loaded.

    Raises:
        ValueError: The weights are of another backbone, number of parts or pooling.
    """
    tensors, notes = _fitting(network, weights)
    network.load_state_dict(tensors)
    return f"{len(tensors)} tensors from {weights.path}" + (
        f" ({'; '.join(notes)})" if notes else ""
    )


def _fitting(network: Any, weights: Weights) -> tuple[dict[str, Tensor], list[str]]:
    """Makes weights such as a network can load, and says what was done to them."""
    tensors = {n: t for n, t in weights.tensors.items() if n not in weights.classifiers}
    notes = [f"of {weights.project}"] if weights.project else []
    if not weights.num_parts:
        notes += ["the necks of the parts start as the global one"] if network.num_parts else []
        neck = {n.removeprefix("neck."): t for n, t in tensors.items() if n.startswith("neck.")}
        for part in range(network.num_parts):
            tensors |= {f"part_necks.{part}.{name}": tensor for name, tensor in neck.items()}
    elif not network.num_parts:
        notes.append("without the necks of the parts")
        tensors = {n: t for n, t in tensors.items() if not n.startswith("part_necks.")}
    resampled = fit_position_embeddings(tensors, network.backbone, "backbone.")
    notes += [resampled] if resampled else []
    # Not the network's own state_dict(), which would load what it is to start from.
    parts = {name: part.state_dict() for name, part in network.named_children()}
    own = {f"{name}.{n}": tensor for name, state in parts.items() for n, tensor in state.items()}
    strange = differences(tensors, own)
    if strange:
        raise ValueError(
            f"{weights.path} does not fit the network: {strange}; {_hint(network, weights)}"
        )
    return tensors, notes


def _hint(network: Any, weights: Weights) -> str:
    if weights.pooling != ("avg" if network.gem is None else "gem"):
        return f"set pooling to {weights.pooling}, with which it was trained"
    if weights.num_parts not in (0, network.num_parts):
        return f"set num_parts to {weights.num_parts}, with which it was trained"
    return f"set backbone ({network.backbone_name}) to the one that it was trained with"


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
    tensors: dict[str, Tensor],
    names: dict[str, str | None],
    path: str | Path,
    model: str,
    backbone: re.Pattern[str],
) -> dict[str, Tensor]:
    """Exchanges prefixes of names; `backbone` are those of the model's that it may have.

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
        if not new or not all(backbone.fullmatch(word) for word in in_backbone):
            raise ValueError(f"{path}: {name} has no place in {model}")
        renamed[new] = tensor
    return renamed


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _count(tensors: dict[str, Tensor], name: str) -> int:
    return next(n for n in itertools.count() if name.format(n) not in tensors)
