"""The command line, which imports what is heavy only once it knows the command."""

from __future__ import annotations

import argparse
import errno
import importlib
import re
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any

# What is wrong with a place that the user named.
DISK = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR,
    errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ENOENT, errno.ELOOP,
)  # fmt: skip
# Each a module of `commands` with a function `run`.
COMMANDS = {
    "demo": "PPLR on drawn people from ImageNet's weights, in minutes on a CPU",
    "crops": "cut people out of videos by a tracker's boxes",
    "labels": "which settings of the labels find people in images of your own",
    "correct": "merge, split and drop clusters on a page; later labels obey",
    "report": "write a run's folder as one page, or two runs side by side",
    "predict": "embed the images of a folder",
    "index": "make embeddings a gallery, or change one",
    "search": "find the images of a gallery that are most like a query",
    "serve": "search a gallery on a page in the browser",
    "export": "write a model as ONNX or torch.export program, compared with it",
    "convert": "read published checkpoints, or write one for the authors' code",
}
LIGHTNING_COMMANDS = {
    "fit": "train on images without identities (PPLR, Cluster Contrast, ISE, SpCL, MMT, ICE, ...)",
    "validate": "mAP and CMC of a checkpoint, or of the weights to start from",
    "test": "the same, logged as test/",
}


def main(args: list[str] | None = None) -> Any:
    """Runs `python -m pplr_lightning ARGS`.

    A complaint that this library raised is a message to the user, and so is what Lightning says of
    its options and OmegaConf of interpolations: one line, exit code 1. Any other error keeps its
    traceback.
    """
    words = sys.argv[1:] if args is None else args
    _check_command(words)

    from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
    from omegaconf.errors import OmegaConfBaseException

    from pplr_lightning.callbacks.interruption import Interrupted
    from pplr_lightning.data.images import BadImageError
    from pplr_lightning.lightning_internals import leave_out_noise

    leave_out_noise()
    complaints = (
        ValueError, TypeError, OSError, ImportError, FloatingPointError, MisconfigurationException,
        OmegaConfBaseException,
    )  # fmt: skip
    try:
        if words and words[0] in COMMANDS:
            command = importlib.import_module(f"{__package__}.commands.{words[0]}")
            return command.run(words[1:])
        from pplr_lightning.commands.training import run_cli

        return run_cli(args)
    except SIGTERMException as stop:
        if not isinstance(stop, Interrupted) or stop.rank == 0:
            print(_how_to_go_on(words, getattr(stop, "checkpoint", None)), file=sys.stderr)
        raise
    except complaints as error:
        own = _raised_here(error)
        caught = re.match(r"Caught \w+ in DataLoader worker", str(error))
        if caught and isinstance(error, (BadImageError, OSError)):  # comes with a traceback
            own = OSError(str(error).strip().splitlines()[-1].partition(": ")[2])
        elif isinstance(error, OmegaConfBaseException):
            own = ValueError(f"{_option_of(error)}: {str(error).splitlines()[0]}")
        elif (
            isinstance(error, MisconfigurationException)
            or getattr(error, "errno", None) in DISK
            or _of_an_option(error)
        ):
            own = own or error
        if own is None:
            raise
        if getattr(own, "rank", 0) == 0:  # all ranks say the same where each says who it is
            print(f"error: {own}", file=sys.stderr)
        sys.exit(1)


def _check_command(words: list[str]) -> None:
    """Ends with an overview of the commands where it is asked for or where none of them is given.

    Another option that comes first, such as `--config`, is Lightning's to read.
    """
    known = LIGHTNING_COMMANDS | COMMANDS
    first = words[0] if words else ""
    if first in known or (first.startswith("-") and first not in ("-h", "--help")):
        return
    parser = argparse.ArgumentParser(
        "python -m pplr_lightning",
        description="Unsupervised person re-identification by part-based pseudo label refinement.",
        epilog="COMMAND --help lists the options of a command.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in known.items():
        commands.add_parser(name, help=summary, add_help=False)
    parser.parse_args(words[:1])


def _how_to_go_on(words: list[str], checkpoint: Path | None) -> str:
    """Names the checkpoint and the command of a run that SIGTERM ended."""
    if checkpoint is None or words[0] not in ("fit",):
        command = shlex.join(["python", "-m", "pplr_lightning", *words])
        state = "what is embedded is kept" if words[0] == "predict" else "nothing was trained yet"
        saved = state if checkpoint is None else f"saved {checkpoint}"
        return f"stopped by SIGTERM; {saved}. Start again (under the same launcher) with\n{command}"
    kept = [
        word
        for previous, word in zip(["", *words], words, strict=False)
        if "--ckpt_path" not in (previous, word) and not word.startswith("--ckpt_path=")
    ]
    command = shlex.join(["python", "-m", "pplr_lightning", *kept, f"--ckpt_path={checkpoint}"])
    return (
        f"stopped by SIGTERM; saved {checkpoint}. Go on (under the same launcher) with\n{command}"
    )


def _of_an_option(error: BaseException) -> bool:
    """Tells whether Lightning refused an option; of its accelerators even a TypeError does."""
    module = str(list(traceback.walk_tb(error.__traceback__))[-1][0].f_globals.get("__name__"))
    if isinstance(error, TypeError):
        return module.startswith("lightning.fabric.") and "devices" in str(error)
    return module.startswith(("lightning.", "lightning_utilities."))


def _option_of(error: Any) -> str:
    """Names the option whose interpolation failed, without the command that it is of."""
    return str(error.full_key or "config").partition(".")[2] or str(error.full_key or "config")


def _raised_here(error: BaseException | None) -> BaseException | None:
    """Finds what this library raised, in the error or in what it was raised from.

    jsonargparse wraps what a constructor says into an account of the types that it has tried.
    """
    while error is not None:
        frames = list(traceback.walk_tb(error.__traceback__))
        if str(frames[-1][0].f_globals.get("__name__")).startswith(f"{__package__}."):
            return error
        error = error.__cause__
    return None
