"""Checkpoints on disk: written whole or not at all, read without executing code, found again."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from torch import Tensor

from pplr_lightning.atomic_write import written_whole
from pplr_lightning.lightning_internals import HANDED_BACK, PathLike, is_local

# Of a run's checkpoint, as far as Lightning and this library read them.
FIELDS: dict[str, type[Any]] = {
    "state_dict": dict, "loops": dict, "hyper_parameters": dict, "callbacks": dict,
    "optimizer_states": list, "lr_schedulers": list, "epoch": int, "global_step": int,
}  # fmt: skip


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's own, but a local file is written aside in its folder and then renamed.

    Lightning writes aside in the system's temporary folder, which is often another file system:
    moving the file from there is copying it, and what stops the copy leaves a truncated checkpoint
    in the place of the last whole one.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: PathLike, storage_options: Any | None = None
    ) -> None:
        """Writes the checkpoint; whatever stops it, what stood at `path` before stays whole.

        Raises:
            OSError: The disk is full or the folder cannot be written to.
        """
        if storage_options is not None or not is_local(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = io.BytesIO()  # torch's writer would turn an OSError into an error without a number
        torch.save(checkpoint, buffer)
        try:
            with written_whole(Path(path), synced=True) as aside:
                aside.write_bytes(buffer.getbuffer())
        except OSError as error:
            raise OSError(
                f"{error}; what stood there before is still whole. Make room or choose another "
                "folder, and go on from the last checkpoint with --ckpt_path last"
            ) from error

    def load_checkpoint(
        self, path: PathLike, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint, tensors and plain values only."""
        if not is_local(path):
            return super().load_checkpoint(path, map_location, weights_only=True)
        if Path(path).name == HANDED_BACK:
            return read_file(path)
        return read_checkpoint(path)


def read_file(path: PathLike, *, mmap: bool = False) -> Any:
    """Reads what `torch.save` wrote onto the CPU; executes nothing that the file may hold.

    Args:
        path: The file.
        mmap: Leave the tensors on disk until they are used, where the file's format allows it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is none of torch's, or one that holds more than tensors and values.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path or repr('')}: no such checkpoint")
    check_is_no_text(path)
    mmap = mmap and zipfile.is_zipfile(path)  # files of torch before 1.6 are none
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # whatever a file that is no checkpoint makes torch raise
        reason = str(error).strip().splitlines()
        if "TorchScript" in str(error):  # as OpenAI's CLIP is
            raise ValueError(
                f"{path}: refused, a TorchScript archive holds code; save its weights alone with "
                "torch.save(torch.jit.load(FILE).state_dict(), OTHER) and give that file"
            ) from error
        unsafe = _is_pickle(path) and ("Unsupported" in str(error) or "weights_only" in str(error))
        raise ValueError(
            f"{path}: refused, the file holds objects that would execute code when loaded; only "
            "tensors and plain values are read"
            if unsafe
            else f"{path}: no readable checkpoint ({reason[0] if reason else type(error).__name__})"
        ) from error


def check_is_no_text(path: PathLike) -> None:
    """Refuses what often lies under a checkpoint's name: where it is to be had, instead of it.

    Raises:
        ValueError: It is Git LFS's pointer or a web page.
    """
    with Path(path).open("rb") as file:
        begin = file.read(512).lstrip().lower()
    if begin.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path}: a Git LFS pointer, not the file itself; run git lfs pull")
    if begin.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise ValueError(f"{path}: a web page, not the file that it offers; download it again")


def _is_pickle(path: PathLike) -> bool:
    """Tells whether torch would load objects from a file: an archive of its own, or a pickle."""
    with Path(path).open("rb") as file:
        return file.read(2) in (b"PK", *(b"\x80" + bytes([version]) for version in range(2, 6)))


def _ignored(module: str, name: str) -> type:
    """Makes a class under the name of another, which is built in its place and keeps nothing."""
    nothing = {"__init__": lambda self, *_: None, "__setstate__": lambda self, *_: None}
    return type(name, (), {"__module__": module, **nothing})


# Other projects save their best mAP beside the weights, as a scalar of NumPy's, for which
# `weights_only` would refuse the whole file.
_NUMPY_SCALARS: list[Any] = [
    _ignored("numpy", "dtype"),
    _ignored("numpy.core.multiarray", "scalar"),
    _ignored("numpy._core.multiarray", "scalar"),  # since NumPy 2
]


def read_checkpoint(path: PathLike, *, mmap: bool = False) -> dict[str, Any]:
    """Reads a checkpoint of a Lightning run, as `read_file` does.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no checkpoint of a run.
    """
    checkpoint = read_file(path, mmap=mmap)
    missing = [
        key
        for key in ("pytorch-lightning_version", "state_dict", "loops")
        if not isinstance(checkpoint, dict) or key not in checkpoint
    ]
    if missing:
        raise ValueError(
            f"{path}: no checkpoint of a run of this library (without {', '.join(missing)}); bare "
            "weights can be given as network.weights, and those of another project be made a "
            "checkpoint by python -m pplr_lightning convert"
        )
    for key, kind in FIELDS.items():
        if not isinstance(checkpoint.get(key, kind()), kind):
            raise ValueError(
                f"{path}: a damaged checkpoint, {key} is a {type(checkpoint[key]).__name__} "
                f"instead of a {kind.__name__}; take another"
            )
    return checkpoint


def check_weights(
    weights: dict[str, Any], own: dict[str, Any], name: str = "the checkpoint"
) -> None:
    """Checks that a checkpoint's weights have the names and shapes of a model's own.

    Raises:
        ValueError: They do not; names the first that differs.
    """
    strange = differences(weights, own)
    if strange:
        raise ValueError(
            f"{name} does not fit the model: {strange}; use the options of model that it "
            "was trained with, or start from its network with network.weights"
        )


def differences(weights: dict[str, Any], own: dict[str, Any]) -> str:
    """Names the first tensor in which weights differ from a model's own; empty if none does."""
    strange = [
        f"{name} is {_shape(weights.get(name))} in the checkpoint, {_shape(own.get(name))} here"
        for name in sorted(own.keys() | weights.keys(), key=lambda name: ("_extra" in name, name))
        if _shape(weights.get(name)) != _shape(own.get(name))
    ]
    more = f" ({len(strange) - 1} more like it)" if len(strange) > 1 else ""
    return strange[0] + more if strange else ""


def _shape(value: Any) -> str:
    if value is None:
        return "missing"
    return str(tuple(value.shape)) if isinstance(value, Tensor) else "present"


def newest_checkpoint(trainer: Trainer) -> Path | None:
    """Finds the checkpoint that has come farthest: of this run, or else of any run of its name.

    By epoch and step first, then by the file's time, which copies and clocks change. Files that
    cannot be read count least.
    """
    for folders in (_own_folders(trainer), _folders_of_others(trainer)):
        # In folders of their own where a metric's slash is in the name: epoch=1-val/mAP=0.5.ckpt.
        found = {path for folder in folders for path in folder.rglob("*.ckpt") if path.is_file()}
        if found:
            return max(found, key=_progress)
    return None


def written_folders(trainer: Trainer) -> list[Path]:
    """Lists the folders that runs of this name alone write to, those of checkpoints among them.

    Not what these lie in: that may be where somebody works, or all of a disk.
    """
    checkpoints = [*_own_folders(trainer), *_folders_of_others(trainer)]
    roots = {_root(trainer, logger) for logger in trainer.loggers}
    runs = {one.parent for one in checkpoints if one.parent.parent in roots}
    # One that was killed early has no checkpoint.
    runs |= {folder for root in roots for folder in root.glob("version_*")}
    return [*checkpoints, *runs]


def _own_folders(trainer: Trainer) -> list[Path]:
    own = [Path(trainer.default_root_dir, "checkpoints")]
    own += [_root(trainer, log) / _version(log.version) / "checkpoints" for log in trainer.loggers]
    given = [getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks]
    return own + [Path(folder) for folder in given if folder is not None]


def _folders_of_others(trainer: Trainer) -> list[Path]:
    roots = [_root(trainer, logger) for logger in trainer.loggers]
    return [folder for root in roots for folder in root.glob("*/checkpoints")]


def _root(trainer: Trainer, logger: Logger) -> Path:
    return Path(logger.save_dir or trainer.default_root_dir, str(logger.name))


def _version(version: int | str | None) -> str:
    """Names the folder of a logger's version."""
    return f"version_{version}" if isinstance(version, int) else str(version)


def _progress(path: Path) -> tuple[int, int, int, str]:
    """Tells how far the run of a checkpoint had come, its time, and its name, to be compared."""
    try:
        checkpoint = read_checkpoint(path, mmap=True)
        epoch, step = int(checkpoint["epoch"]), int(checkpoint["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        epoch, step = -1, -1
    return epoch, step, path.stat().st_mtime_ns, str(path)
