"""A folder of good input, and commands on bad copies of it, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

SECONDS = 60.0  # that a command may take; seconds are usual, on a busy machine too
LINE, UNCLEAR, TRACEBACK, HANG, TAKEN = "one line", "unclear", "traceback", "hang", "accepted"
ENDS = (LINE, UNCLEAR, TRACEBACK, HANG, TAKEN)


class Case(NamedTuple):
    """A command with bad input.

    Attributes:
        name: Kind of input and what is wrong with it.
        words: The command line.
        named: Of which the message must have one: the file, the option or the value.
    """

    name: str
    words: list[str]
    named: tuple[str, ...]


class Result(NamedTuple):
    """How a case ended, and the last line that it wrote."""

    case: Case
    end: str
    line: str


class Bench:
    """A folder with good input of every kind, which cases copy and spoil.

    Args:
        folder: To work in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = multiprocessing.get_context("forkserver")
        self.images = folder / "set/bounding_box_train"
        self.checkpoint = folder / "last.ckpt"
        self.embeddings = folder / "some.parquet"
        self.gallery = folder / "some.index"
        self.run_folder = folder / "runs/bad/version_0"
        self.cases = 0

    def options(self, folder: Path | None = None) -> list[str]:
        """Options that make `fit` and its kin a matter of a second."""
        return [
            f"--config={self.folder / 'tiny.yaml'}",
            f"--trainer.logger.init_args.save_dir={folder or self.new()}",
        ]

    def new(self) -> Path:
        """Makes a folder for a case."""
        self.cases += 1
        made = self.folder / "cases" / str(self.cases)
        made.mkdir(parents=True)
        return made

    def copy(self, source: Path) -> Path:
        """Copies a good file or folder for a case to spoil."""
        place = self.new() / source.name
        if source.is_dir():
            shutil.copytree(source, place)
        else:
            shutil.copy(source, place)
        return place

    def prepare(self) -> None:
        """Makes the good input by the commands themselves."""
        from pplr_lightning.data import SyntheticReID

        SyntheticReID(
            self.folder / "set", train_identities=8, test_identities=4, images_per_identity=6,
            image_size=(64, 32), distractors=2, junk=2,
        ).prepare()  # fmt: skip
        (self.folder / "tiny.yaml").write_text(TINY.format(root=self.folder / "set"))
        few = self.folder / "few"
        few.mkdir()
        for path in sorted(self.images.iterdir())[:12]:
            shutil.copy(path, few)
        self.few = few
        commands = (
            ["fit", *self.options(self.folder / "runs"), "--trainer.max_epochs=1"],
            self.predict(out=self.embeddings),
            ["index", f"--embeddings={self.embeddings}", f"--out={self.gallery}"],
        )
        for words in commands:
            result = self.attempt(Case("good", words, ()), stopped=False)
            if result.end != TAKEN:
                raise RuntimeError(f"{' '.join(words)}: {result.end}, {result.line}")
            if words[0] == "fit":
                shutil.copy(self.run_folder / "checkpoints/last.ckpt", self.checkpoint)

    def predict(
        self, *options: str, root: Path | None = None, out: Path | None = None
    ) -> list[str]:
        """Embeds a folder."""
        return [
            "predict", f"--ckpt_path={self.checkpoint}", f"--data.root={root or self.few}",
            f"--out={out or self.new() / 'out.parquet'}", "--data.num_workers=0",
            "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", *options,
        ]  # fmt: skip

    def search(self, *options: str, gallery: Path | None = None) -> list[str]:
        """Searches a gallery."""
        return [
            "search", f"--index={gallery or self.gallery}", f"--ckpt_path={self.checkpoint}",
            f"--query={next(self.few.iterdir())}", *options,
        ]  # fmt: skip

    def labels(self, *options: str, root: Path | None = None) -> list[str]:
        """Labels a folder under one setting."""
        return [
            "labels", f"--data.root={root or self.few}", f"--weights={self.checkpoint}",
            "--num_workers=0", "--k1=[3]", "--eps=[0.5]", "--min_samples=[2]",
            f"--out={self.new() / 'labels'}", *options,
        ]  # fmt: skip

    def attempt(self, case: Case, *, stopped: bool = True) -> Result:
        """Runs a case to its end, or to the end of its time."""
        place = self.new()
        process = self.server.Process(target=_command, args=(case.words, str(place), stopped))
        process.start()
        process.join(SECONDS)
        ended = not process.is_alive()
        if process.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its workers
        process.join()
        written = place / "stderr"
        text = written.read_text(errors="replace") if ended and written.exists() else ""
        lines = [line for line in text.splitlines() if line.strip()]
        last = lines[-1] if lines else ""
        if not ended:
            end = HANG
        elif process.exitcode == 0:
            end = TAKEN
        elif "Traceback (most recent call last)" in text or not re.match(
            r"(error: |python -m pplr_lightning( \w+)?: error: )", last
        ):
            end, last = TRACEBACK, f"{process.exitcode}: {last}"
        else:
            end = LINE if any(name in last for name in case.named) else UNCLEAR
        shutil.rmtree(place, ignore_errors=True)
        return Result(case, end, last)


TINY = """
seed_everything: 0
model:
  class_path: PPLRModule
  init_args:
    network: {{backbone: test_resnet, weights: null, norm_batch_size: 8, num_parts: 2}}
    max_clusters: 48
    agreement_k: 4
data:
  dataset: {{class_path: pplr_lightning.data.Market1501, init_args: {{root: "{root}"}}}}
  image_size: [64, 32]
  batch_size: 16
  iterations: 2
  num_workers: 0
pseudo_labels:
  labeler: {{class_path: DBSCAN, init_args: {{k1: 6, k2: 2, min_samples: 2}}}}
figures: {{names: []}}
trainer:
  max_epochs: 1
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  log_every_n_steps: 1
  check_val_every_n_epoch: 1
  logger:
    class_path: lightning.pytorch.loggers.CSVLogger
    init_args: {{save_dir: runs, name: bad}}
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{filename: last, save_on_train_epoch_end: true, enable_version_counter: false}}
"""


def _command(words: list[str], folder: str, stopped: bool) -> None:
    """Runs the command line in the folder, as a process of its own."""
    from lightning.pytorch.strategies import Strategy

    from pplr_lightning.cli import main

    os.setsid()
    os.chdir(folder)
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    torch.set_num_threads(1)
    if stopped:
        Strategy.training_step = lambda *_: os._exit(0)  # type: ignore[assignment]
    if words[0] == "serve":
        import uvicorn

        uvicorn.Server.run = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    sys.argv = ["pplr_lightning", *words]
    main(words)


def some(values: Sequence[Any], turn: int) -> Sequence[Any]:
    """Takes a third of the values: all meet some option, each option some of them."""
    return values[turn % 3 :: 3] if len(values) > 4 else values


def files(source: Path, seed: int, most: int) -> dict[str, bytes]:
    """Spoils a file: cut off, turned bits, zeros, doubled, and what is another file altogether."""
    content, draw = source.read_bytes(), random.Random(seed)
    found = {
        "empty": b"", "a text": b"nothing", "zeros": bytes(len(content)), "doubled": content * 2,
        "page": b"<!doctype html><html>", "pointer": b"version https://git-lfs.github.com/spec/v1\n",
        "half": content[: len(content) // 2], "last byte gone": content[:-1],
        "first gone": content[1:],
        "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(99), "reversed": content[::-1],
    }  # fmt: skip
    for number in range(most):
        at = draw.randrange(len(content)) if number % 2 else draw.randrange(min(400, len(content)))
        found[f"turned at {at}"] = content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]
    for _ in range(most // 2):
        at = draw.randrange(1, len(content))
        found[f"cut at {at}"] = content[:at]
    return found
