"""Backbone weights from any file that holds them: found by their names, made to fit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from pplr_lightning.weights.checkpoints import check_is_no_text, read_file
from pplr_lightning.weights.known_backbones import KnownBackbone, convert, recognise_backbone

SHOWN = 3  # names of a list that a message gives


class BackboneWeights(NamedTuple):
    """Tensors of a file that are a backbone's, before they are known to fit.

    Attributes:
        tensors: All of the file, where another project's layout was read by names of timm's.
        names: The backbone's name of each, those that it does not have included.
        how: How they were found, for a message.
        notes: What else there is to say.
        layout: Whose layout it is; None where that is not known.
    """

    tensors: dict[str, Tensor]
    names: dict[str, str]
    how: str
    notes: list[str]
    layout: KnownBackbone | None


def load_backbone_weights(backbone: nn.Module, path: str | Path) -> str:
    """Loads weights that were saved for the same backbone, whatever they are wrapped in.

    The tensors may lie in dictionaries of any depth and carry prefixes of any length
    (`teacher`, `state_dict`, `module.`, `backbone.`, ...): the prefix is taken under which most of
    the backbone's names are found; where several copies have the same number, a teacher's, else
    the first in the file. Layouts of other projects that are known (`known_backbones.py`) are
    given timm's names first. Where hardly a name is the backbone's, its order counts, if each
    tensor has the shape and the kind (`weight`, `running_mean`, ...) of its counterpart: so are
    those of another implementation of the same architecture read. Every tensor of the backbone has
    to be there in its shape, but for batch counters and for position embeddings of another grid,
    which are resampled: a backbone that is random in part would train on in silence. Anything else
    in the file, such as a classifier, is left out.

    Where the layout tells on images of which mean and deviation it was trained, they take the place
    of those in the backbone's `pretrained_cfg`, and `weights_project` says whose they are; else
    they are taken to be those of timm's.

    Args:
        backbone: A timm model without classifier.
        path: As of `read_tensors`.

    Returns:
        A line that says what was loaded and what was left out.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, would execute code, or holds the weights of another backbone.
    """
    own = backbone.state_dict()
    given, found = fitting_backbone_weights(backbone, path)
    names, notes = given.names, given.notes
    backbone.load_state_dict({n: found[n] for n in own if n in found}, strict=False)
    whole = cast(Any, backbone)
    whole.weights_project = "published"
    if given.layout is not None and given.layout.normalisation is not None:
        mean, std = given.layout.normalisation
        whole.pretrained_cfg = {**whole.pretrained_cfg, "mean": mean, "std": std}
        whole.weights_project = given.layout.project
    loaded = sum(name in found for name in own)
    left_out = [
        name
        for name in given.tensors
        if names.get(name) not in own and not name.endswith("num_batches_tracked")
    ]
    notes += [f"left out {len(left_out)}: {_some(left_out)}"] if left_out else []
    whose = f" ({given.layout.project})" if given.layout is not None else ""
    return "; ".join([f"{loaded} tensors from {path}{whose}{given.how}", *notes])


def fitting_backbone_weights(
    backbone: nn.Module, path: str | Path, *, mmap: bool = False
) -> tuple[BackboneWeights, dict[str, Tensor]]:
    """Finds a backbone's weights in a file, and those that it loads, made to fit.

    Args:
        backbone: A timm model without classifier.
        path: As of `read_tensors`.
        mmap: Likewise.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, would execute code, or holds the weights of another backbone.
    """
    given = find_backbone_weights(backbone, path, mmap=mmap)
    names = given.names
    found = {names[name]: tensor for name, tensor in given.tensors.items() if name in names}
    resampled = fit_position_embeddings(found, backbone)
    given.notes.extend([resampled] if resampled else [])
    _check(found, backbone.state_dict(), path, given.layout)
    return given, found


def find_backbone_weights(
    backbone: nn.Module, path: str | Path, *, mmap: bool = False
) -> BackboneWeights:
    """Finds which tensors of a file are which of a backbone's.

    Args:
        backbone: A timm model without classifier.
        path: As of `read_tensors`.
        mmap: Likewise.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, would execute code, or holds nothing of the backbone's.
    """
    tensors, notes = read_tensors(path, mmap=mmap), list[str]()
    recognised = recognise_backbone(tensors)
    layout = None if recognised is None else recognised.layout
    if recognised is not None:
        try:
            tensors, notes = convert(tensors, recognised, backbone)
        except ValueError as error:
            raise ValueError(f"{path}: {error}{_hint(layout)}") from error
    names, how = match_names(tensors, backbone.state_dict(), path, layout)
    return BackboneWeights(tensors, names, how, notes, layout)


def _hint(layout: KnownBackbone | None) -> str:
    if layout is None:
        return ""
    return (
        f"; the file has the layout of {layout.project}, for which set model.network.backbone to "
        f"{layout.backbones}"
    )


def read_tensors(path: str | Path, *, mmap: bool = False) -> dict[str, Tensor]:
    """Reads the tensors of a file, whatever dictionaries they lie in, by their joined names.

    Args:
        path: A file of `torch.save` that holds tensors and plain values, or a .safetensors file.
        mmap: Leave the tensors on disk until they are used.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or would execute code.
    """
    path = Path(path)
    if path.suffix != ".safetensors" or not path.is_file():
        return dict(_tensors(read_file(path, mmap=mmap)))
    check_is_no_text(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: no readable .safetensors file ({error})") from error


def _tensors(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        else:
            yield from _tensors(value, f"{prefix}{name}.")


def match_names(
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    path: str | Path,
    layout: KnownBackbone | None = None,
) -> tuple[dict[str, str], str]:
    """Finds which tensors of a file are which of a backbone's, by their names or their order.

    Returns:
        The backbone's name of each, those that it does not have included, and how they were found.

    Raises:
        ValueError: No name is the backbone's, nor is the order.
    """
    counts: Counter[str] = Counter()
    for name in tensors:
        starts = [0, *(place + 1 for place, sign in enumerate(name) if sign == ".")]
        counts.update(name[:start] for start in starts if name[start:] in own)
    prefix = max(counts, key=lambda name: (counts[name], "teacher" in name), default="")
    ordered = {} if 2 * counts[prefix] > len(own) else _by_order(tensors, own)
    if ordered:
        first, *_ = ordered.items()
        return ordered, f", by their order ({first[0]} is {first[1]}, ...)"
    if not counts:
        raise ValueError(
            f"{path}: none of its {len(tensors)} tensors has a name of the backbone's; the file "
            f"has {_some(tensors)}, the backbone {_some(own)}" + _hint(layout)
        )
    names = {name: name.removeprefix(prefix) for name in tensors if name.startswith(prefix)}
    return names, f", under the prefix {prefix}" if prefix else ""


def _by_order(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, str]:
    """Pairs names in their order; none where a shape or a kind differs, or the file goes on."""
    given, wanted = (
        [name for name in names if not name.endswith("num_batches_tracked")]
        for names in (tensors, own)
    )
    columns = enumerate(zip(*(name.split(".") for name in given), strict=False))
    shared = next((place for place, words in columns if len(set(words)) > 1), 0)
    inner = {name.split(".")[shared] for name in given[: len(wanted)]}
    deeper = any(name.split(".")[shared] in inner for name in given[len(wanted) :])
    pairs = list(zip(given, wanted, strict=False))
    differ = any(
        theirs.rpartition(".")[2] != ours.rpartition(".")[2]
        or tensors[theirs].shape != own[ours].shape
        for theirs, ours in pairs
    )
    return {} if differ or deeper or len(pairs) < len(wanted) else dict(pairs)


def _check(
    found: dict[str, Tensor],
    own: dict[str, Tensor],
    path: str | Path,
    layout: KnownBackbone | None,
) -> None:
    """Refuses weights that lack a tensor of the backbone's, or are those of a larger one."""
    inner = {name.partition(".")[0] for name in own}
    wrong = {
        "missing": [n for n in own if n not in found and not n.endswith("num_batches_tracked")],
        "of another shape": [
            f"{name} {tuple(found[name].shape)} for {tuple(own[name].shape)}"
            for name in own
            if name in found and found[name].shape != own[name].shape
        ],
        # as those of a deeper network with the same first blocks
        "too many": [n for n in found if n not in own and n.partition(".")[0] in inner],
    }
    faults = [f"{len(n)} {fault} ({_some(n)})" for fault, n in wrong.items() if n]
    if faults:
        raise ValueError(
            f"{path}: not the weights of this backbone. Of its {len(own)} "
            f"tensors, {sum(name in found for name in own)} are there; {', '.join(faults)}"
            + _hint(layout)
        )


def fit_position_embeddings(weights: dict[str, Tensor], backbone: Any, prefix: str = "") -> str:
    """Resamples a ViT's position embeddings in `weights` to the grid of `backbone`, in place.

    A file does not say what grid they are of. It is taken to be one, two or three times as high as
    wide, like those of images of 224 x 224, 256 x 128 and 384 x 128; no number of tokens fits two
    of these. Embeddings that fit none are left as they are.

    Args:
        weights: Tensors by name.
        backbone: Of any family.
        prefix: Before the backbone's names in `weights`.

    Returns:
        What was done, or nothing.
    """
    name, own = f"{prefix}pos_embed", getattr(backbone, "pos_embed", None)
    given = weights.get(name)
    if own is None or given is None or given.ndim != 3 or given.shape[1] == own.shape[1]:
        return ""
    height, width = backbone.patch_embed.grid_size
    num_prefix_tokens = own.shape[1] - height * width
    grid = _grid(given.shape[1] - num_prefix_tokens)
    if grid is None:
        return ""
    weights[name] = resample_abs_pos_embed(
        given, [height, width], list(grid), num_prefix_tokens=num_prefix_tokens
    )
    return f"position embeddings resampled from {grid[0]} x {grid[1]} to {height} x {width}"


def _grid(tokens: int) -> tuple[int, int] | None:
    for ratio in (1, 2, 3):
        width = math.isqrt(max(tokens, 0) // ratio)
        if width > 0 and ratio * width * width == tokens:
            return ratio * width, width
    return None


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
