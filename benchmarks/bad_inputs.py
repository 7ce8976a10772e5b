# ruff: noqa: E501, RUF001 - tables of input, in other scripts, too
"""Gives every command bad input and counts how it ends: one clear line is wanted, and no other way.

    python benchmarks/bad_inputs.py                      # all, some minutes of one core
    python benchmarks/bad_inputs.py --only picture       # those whose name holds a word
    python benchmarks/bad_inputs.py --sample 20 --seed 1

Bad command lines, configs, tables, pictures, checkpoints, embeddings, galleries, run folders and
places. Each is the real command in a process of its own, which is forked from one that has imported
the library; a training that starts is stopped at its first step. What is accepted has to be in
`ACCEPTED`, with the reason. The exit code is 0 if there is no traceback, no hang, no message that
fails to name what is wrong, and no acceptance without a reason.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60.0  # that a command may take; seconds are usual, on a busy machine too
LINE, UNCLEAR, TRACEBACK, HANG, TAKEN = "one line", "unclear", "traceback", "hang", "accepted"
ENDS = (LINE, UNCLEAR, TRACEBACK, HANG, TAKEN)

# What is accepted, by a pattern of the case's name, and why that is right.
ACCEPTED: dict[str, str] = {
    r"run ": "report shows what can be read, and says on the page what was left out",
    r"embeddings doubled|gallery items.parquet doubled": "parquet is read from its end: all there",
    r"embeddings turned at|gallery items.parquet turned at": "a byte that nothing is read from: "
    "the statistics, of which a reader makes no use",
    r"embeddings \w+_id of (huge|null)": "ids of 64 bits; null is an id that is not known",
    r"gallery index.faiss (turned at|doubled|last byte gone)": "FAISS keeps no checksum: another "
    "byte is another vector, and it reads no further than its own end",
    r"gallery meta.json (last byte gone|turned at)": "the last byte is a new line; a recall of "
    "another digit, or space",
    r"gallery recall None": "of an index that is searched whole",
    r"checkpoint of \w+: turned at": "torch reads no checksum: a byte of a tensor is another weight",
    r"checkpoint of weights: ": "reads the weights, which are whole, and not the other fields",
    r"checkpoint of (export|predict|search|convert): (?!weights|state_dict|option)": "reads weights "
    "and options, which are whole, and not the fields of training",
    r"checkpoint of (fit|validate): (option|network|preprocessing|hparams_name|hyper_parameters)": "the "
    "options of the command line count, and those of the checkpoint do not",
    r"picture of predict: ": "predict leaves out what is no image and names it, with its number",
    r"picture of \w+: (JPEG flipped|PNG flipped|surplus|GIF|CMYK|one pixel|a long stripe|no "
    r"transparency)": "a picture that every viewer shows; JPEG keeps no checksum",
    r"table (BOM|spaces|carriage returns|CRLF|floats|blank lines)": "as spreadsheets and pandas write",
    r"table (of fit )?(negative|other digits|blank ids)": "ids below 0 and empty ones are not known; "
    "digits of any script are a number",
    r"table surplus row": "predict warns of rows of no image",
    r"table of fit (huge|words)": "fit numbers ids that are no numbers",
    r"config unknown section": "it is empty: nothing of it is passed over",
    r"line index: .*--memory_limit=inf": "a memory without limit",
    r"line index: .*--probes=９９": "digits of any script are a number",
    r"line search: .*--top=9": "more than there are: all are shown",
    r"line search: .*--sheet=": "the picture is a PNG whatever its name",
    r"line (export|predict): .*(1 1|.1,1.)": "a size that this network takes",
    r"line predict: .*--data.pattern=": "a pattern that finds a digit in every name",
    r"option (data.num_workers|data.padding|model.network.num_parts)=0": "none is a number of them",
    r"option (seed_everything|data.seed)=0": "a seed like any other",
    r"option trainer.(log_every_n_steps|max_epochs)=(0|-1)": "Lightning's for never and for ever",
    r"option \S+=null$": "the option may be left out, and its default is null, or Lightning's is",
    r"option pseudo_labels.probes=": "no more cells are searched than there are",
    r"option optimizer.(lr|weight_decay)=1e400": "infinite: the first step is not finite, and stops "
    "the run with a line that names optimizer.lr",
    r"option trainer.gradient_clip_val=(1e400|inf)": "a norm without bound, which clips nothing",
}


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
        text = (place / "stderr").read_text(errors="replace") if ended else ""
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


# The kinds of bad values; a text is how it stands on a command line.
WHOLE = ("-1", "0", "1.5", "nan", "1e400", "99999999999999999999", "two", "", "null", "[1]", "1:30")
REAL = ("nan", "inf", "-inf", "-0.5", "1e400", "half", "", "null", "[0.5]", "0,5", "1:30.5")
TRUTH = ("maybe", "2", "", "null", "[true]", "nan")
CHOICE = ("", "nope", "null", "[auto]", "ÄÖ", "1")
PAIR = ("64", "[64]", "[64,32,3]", "[0,0]", "[-1,32]", "[64,nan]", "[1e9,1e9]", "64x32", "[]",
        "null", "[010,32]")  # fmt: skip
CLASS = ("Nope", "os.system", "[]", "3", "null", "{class_path: }", "pplr_lightning.Nope", "é")
OPTIONS: dict[str, tuple[str, ...]] = {
    "data.batch_size": WHOLE, "data.instances": WHOLE, "data.iterations": WHOLE,
    "data.eval_batch_size": WHOLE, "data.num_workers": WHOLE, "data.padding": WHOLE,
    "data.views": WHOLE, "data.seed": WHOLE, "seed_everything": WHOLE,
    "model.max_clusters": WHOLE, "model.agreement_k": WHOLE, "model.network.num_parts": WHOLE,
    "model.network.norm_batch_size": WHOLE, "pseudo_labels.labeler.k1": WHOLE,
    "pseudo_labels.labeler.k2": WHOLE, "pseudo_labels.labeler.min_samples": WHOLE,
    "pseudo_labels.probes": WHOLE, "trainer.max_epochs": WHOLE, "trainer.devices": WHOLE,
    "trainer.accumulate_grad_batches": WHOLE, "trainer.check_val_every_n_epoch": WHOLE,
    "trainer.log_every_n_steps": WHOLE, "trainer.num_nodes": WHOLE,
    "data.random_erasing": REAL, "pseudo_labels.labeler.eps": REAL, "pseudo_labels.labeler.rho": REAL,
    "model.beta": REAL, "layer_decay": REAL, "optimizer.lr": REAL, "optimizer.weight_decay": REAL,
    "trainer.gradient_clip_val": REAL, "data.repeat_images": TRUTH, "data.plain_view": TRUTH,
    "model.network.channels_last": TRUTH, "model.aals": TRUTH, "data.use_cameras": CHOICE,
    "data.cache": CHOICE, "data.augmentation": CHOICE, "data.bad_images": CHOICE,
    "pseudo_labels.backend": CHOICE, "pseudo_labels.index": CHOICE,
    "evaluation.test_features": CHOICE, "trainer.accelerator": CHOICE, "trainer.strategy": CHOICE,
    "trainer.precision": CHOICE, "model.network.pooling": CHOICE, "model.network.backbone": CHOICE,
    "data.image_size": PAIR, "evaluation.topk": ("[]", "[0]", "[1,1]", "[-1]", "[a]", "5", "null"),
    "data.mean": ("[0,0]", "[nan,0,0]", "0.5", "[a,b,c]"),
    "data.std": ("[0,1,1]", "[1,1]", "[-1,1,1]", "[inf,1,1]"),
    "data.dataset": tuple(value for value in CLASS if value != "null"),  # null: the drawn set
    "model": CLASS, "model.network": CLASS, "pseudo_labels.labeler": CLASS,
    "optimizer": CLASS, "lr_scheduler": CLASS, "trainer.callbacks": CLASS,
    "trainer.logger": CLASS, "ckpt_path": ("nope.ckpt", "/", "", "[]", "\u202egpj"),
    "model.network.weights": ("nope.pth", "/", "/dev/null", "/dev/zero", "[]", "3"),
    "data.nope": ("1",), "nope": ("1",), "trainer.nope": ("1",), "model.nope": ("1",),
}  # fmt: skip


def some(values: Sequence[Any], turn: int) -> Sequence[Any]:
    """Takes a third of the values: all meet some option, each option some of them."""
    return values[turn % 3 :: 3] if len(values) > 4 else values


def option_cases(bench: Bench) -> Iterator[Case]:
    """Values of other types, out of range, in other scripts."""
    for turn, (option, values) in enumerate(OPTIONS.items()):
        base = ["--optimizer=Adam"] if option.startswith("optimizer.") else []
        base = base or (
            ["--optimizer=Adam", "--optimizer.lr=1e-4"] if option == "lr_scheduler" else []
        )
        for value in some(values, turn):
            words = ["fit", *bench.options(), *base, f"--{option}={value}"]
            yield Case(
                f"option {option}={value}",
                words,
                (option.rpartition(".")[2], value or "''", "learning rate"),
            )
    for command in ("validate", "test", "predict"):
        for option, value in (
            ("data.image_size", "[0,0]"), ("data.eval_batch_size", "0"), ("trainer.devices", "none"),
            ("evaluation.topk", "[0]"), ("ckpt_path", "nope.ckpt"), ("ckpt_path", "last"),
        ):  # fmt: skip
            words = [command, *bench.options(), f"--{option}={value}"]
            yield Case(
                f"option of {command} {option}={value}", words, (option.rpartition(".")[2], value)
            )


def word_cases(bench: Bench) -> Iterator[Case]:
    """Command lines of the commands with options of their own."""
    ckpt, emb, gal = bench.checkpoint, bench.embeddings, bench.gallery
    query = next(bench.few.iterdir())
    export = ["export", f"--ckpt_path={ckpt}"]
    serve = ["serve", f"--index={gal}", f"--ckpt_path={ckpt}"]
    out = str(bench.new())
    lines: dict[str, list[list[str]]] = {
        "nothing": [["nope"], ["Fit"], ["fitt"], ["ﬁt"], [" "], ["index", "new"]],
        "index": [
            ["index"], ["index", f"--embeddings={emb}"], ["index", f"--index={gal}"],
            ["index", f"--embeddings={emb}", f"--index={gal}"],
            ["index", f"--embeddings={emb}", f"--out={gal}"],
            *(
                ["index", f"--embeddings={emb}", f"--out={out}/{n}", *more]
                for n, more in enumerate((
                    ["--kind=nope"], ["--kind="], ["--memory_limit=nan"], ["--memory_limit=-1"],
                    ["--memory_limit=0"], ["--memory_limit=inf"], ["--memory_limit=much"],
                    ["--probes=0"], ["--probes=-3"], ["--probes=1.5"], ["--probes=９９"],
                    ["--probes=9999999999999999999999", "--kind=ivfsq"], ["--kind=ivfpq"],
                    ["--kind=ivfsq"], ["--add", str(emb)], ["--nope"], ["surplus"],
                ))
            ),
            ["index", f"--index={gal}", "--remove", "nope.png", f"--out={out}/r1"],
            ["index", f"--index={gal}", "--remove", "", f"--out={out}/r2"],
            ["index", f"--index={gal}", "--remove", "\udcff.png", f"--out={out}/r3"],
            ["index", f"--index={gal}", f"--add={emb}", f"--out={out}/a1"],
            ["index", f"--index={gal}", "--add=nope.parquet", f"--out={out}/a2"],
            ["index", f"--index={gal}", "--probes=3", f"--add={emb}"],
            ["index", f"--embeddings={emb}", "--out="],
            ["index", f"--embeddings={emb}", f"--out={'x' * 300}"],
            ["index", f"--embeddings={emb}", f"--out={emb}/below"],
            ["index", f"--embeddings={emb}", "--out=/proc/nope/gallery"],
        ],
        "search": [
            ["search"], ["search", f"--index={gal}"], bench.search("--top=0"),
            bench.search("--top=-1"), bench.search("--top=all"), bench.search("--top=1e400"),
            bench.search("--top=99999999999999999999"), bench.search("--weights", "1", "2"),
            bench.search("--weights", "nan"), bench.search("--weights", "much"),
            bench.search("--weights"), bench.search("--without_cameras", "first"),
            bench.search("--without_cameras", "99999999999999999999999"),
            bench.search("--without_cameras", *map(str, range(20))),
            bench.search("--sheet=/"), bench.search("--sheet=sheet.nope"),
            bench.search("--sheet=/proc/nope/sheet.png"), bench.search("--sheet="),
            bench.search("--sheet=sheet"), bench.search("--nope"), bench.search("--rerank=maybe"),
            bench.search("--query", "nope.png"), bench.search("--query", "/"),
            bench.search("--query", ""),
            bench.search("--query", "/dev/zero"), bench.search(f"--ckpt_path={query}"),
            bench.search("--ckpt_path="), bench.search("--index="), bench.search("--index=/"),
        ],
        "export": [
            ["export"], export, [*export, "--format=onnx"], [*export, "--format=nope", "--out=a.pt2"],
            *(
                [*export, "--format=torch", *more]
                for more in (
                    ["--out=a.onnx"], ["--out=a"], ["--out="], ["--out=/"], ["--out=nope/a.pt2"],
                    ["--out=/proc/a.pt2"], [f"--out={'x' * 300}.pt2"],
                    ["--out=a.pt2", "--image_size", "64"], ["--out=a.pt2", "--image_size", "0", "0"],
                    ["--out=a.pt2", "--image_size", "-1", "4"],
                    ["--out=a.pt2", "--image_size", "1", "1"],
                    ["--out=a.pt2", "--image_size", "9999999", "4"],
                    ["--out=a.pt2", "--image_size", "nan", "4"],
                    ["--out=a.pt2", "--image_size", "64", "32", "3"], ["--out=a.pt2", "surplus"],
                )
            ),
        ],
        "convert": [
            ["convert"], ["convert", str(ckpt)], ["convert", "nope.pth", "o.ckpt"],
            ["convert", str(ckpt), str(ckpt)], ["convert", "/", "o.ckpt"],
            ["convert", str(ckpt), "/proc/nope/o.ckpt"], ["convert", str(ckpt), "o", "surplus"],
            ["convert", str(query), "o.ckpt"], ["convert", "/dev/null", "o.ckpt"],
            ["convert", str(ckpt), "o", "--backbone=nope"], ["convert", "", "o"],
            ["convert", str(ckpt), f"{'x' * 300}"],
        ],
        "report": [
            ["report"], ["report", "nope"], ["report", str(ckpt)], ["report", "/"],
            ["report", str(bench.few)], ["report", ""], ["report", "a", "b", "c"],
            ["report", str(bench.run_folder), "nope"],
            ["report", str(bench.run_folder), "--output=/"],
            ["report", str(bench.run_folder), "--output="],
            ["report", str(bench.run_folder), "--output=/proc/nope/a.html"],
            ["report", str(bench.run_folder), f"--output={'x' * 300}"],
            ["report", str(bench.run_folder), f"--output={ckpt}/a.html"],
        ],
        "serve": [
            ["serve"], ["serve", f"--index={gal}"], [*serve, "--port=-1"], [*serve, "--port=99999"],
            [*serve, "--port=http"], [*serve, "--host=0.0.0.0"], [*serve, "--host=::"],
            [*serve, "--host="], [*serve, "--host=nope.invalid"], [*serve, "--host=256.1.1.1"],
            [*serve, "--host=é" * 40], [*serve, "--port=1.5"],
            [*serve, "--nope"],
            ["serve", "--index=nope", f"--ckpt_path={ckpt}", "--port=0"],
            ["serve", f"--index={gal}", "--ckpt_path=nope", "--port=0"],
        ],
        "demo": [
            ["demo", "--seed=-1"], ["demo", "--seed=nan"], ["demo", "--seed=99999999999999999999"],
            ["demo", "--configs=nope"], ["demo", f"--configs={ckpt}"], ["demo", "--nope"],
            ["demo", "--weights=nope.pth"], ["demo", f"--runs={ckpt}"], ["demo", "surplus"],
            ["demo", "--weights=/dev/zero"],
        ],
        "predict": [
            bench.predict(*more)
            for more in (
                ["--data.batch_size=0"], ["--data.batch_size=nan"], ["--data.num_workers=-1"],
                ["--data.num_workers=99999999"], ["--data.image_size=[0,0]"],
                ["--data.image_size=64"], ["--features=nope"], ["--features="], ["--features=null"],
                ["--data.pattern=("], ["--data.pattern=x"], ["--data.pattern=(?P<camera>zz)"],
                ["--data.pattern=(?P<camera>.)"], ["--data.table=nope.csv"], ["--data.table=/"],
                ["--data.table="], ["--data.root=nope"], ["--data.root="],
                [f"--data.root={ckpt}"], ["--trainer.accelerator=nope"], ["--trainer.devices=0"],
                ["--trainer.devices=99"], ["--trainer.precision=8"], ["--trainer.num_nodes=-1"],
                ["--trainer.strategy=nope"], ["--out="], ["--out=/"], ["--out=/proc/nope/a.parquet"],
                [f"--out={'x' * 300}"], [f"--out={ckpt}"], [f"--out={ckpt}/a.parquet"],
                ["--ckpt_path="], ["--ckpt_path=/"], ["--ckpt_path=nope"], ["--nope=1"], ["surplus"],
                ["--data.image_size=[1,1]"],
            )
        ],
    }  # fmt: skip
    for command, words in lines.items():
        for one in words:
            *_, option = (
                one[0] if len(one) < 2 else one[-1].partition("=")[0].lstrip("-").rsplit(".", 1)
            )
            tail = " ".join(one[-2:]).replace(str(bench.folder), "")[-60:]
            named = [word.partition("=")[2] or word for word in one[-3:]]
            named = [name for name in (*named, option) if name] + [
                f"--{option}",
                "COMMAND",
                "required",
            ]
            named += [
                "following arguments are required",
                "for building a gallery",
                "usage",
                "''",
                "in the gallery",
                "no run's folder",
                ". is there already",
                ".: the folder",
            ]
            yield Case(f"line {command}: {tail!r}", one, tuple(named))


YAMLS: dict[str, bytes] = {
    "empty": b"", "a list": b"- 1\n", "a text": b"data", "a number": b"3", "null": b"null",
    "zeros": b"\0\0\0", "Latin-1": b"data: {cache: \xe9}", "UTF-16": "data: {}".encode("utf-16"),
    "binary": bytes(range(256)), "cut off": b"data: {padding: [", "tabs": b"data:\n\tpadding: 3",
    "a key twice": b"data: {padding: 1, padding: 2}", "section twice": b"data: {}\ndata: {}",
    "octal": b"data: {padding: 010}", "base 60": b"data: {padding: 1:30}",
    "section null": b"data: null", "section a list": b"data: [1]", "section a text": b"data: x",
    "unknown section": b"nope: {}", "unknown option": b"data: {nope: 1}", "number key": b"1: 2",
    "tuple key": b"? [1, 2]\n: 3", "null key": b"~: 3", "tag": b"data: !!python/object:os.x {}",
    "own tag": b"data: !nope {}", "set": b"!!set {a, b}", "binary tag": b"data: !!binary aGk=",
    "itself": b"data: &a\n  padding: *a", "no anchor": b"data: *a", "two documents": b"a: 1\n---\nb: 2",
    "bomb": b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % p] * 10)) for p, c in zip(b"abcdefgh", b"bcdefghi", strict=True)
    ),
    "deep": b"data: " + b"[" * 3000 + b"]" * 3000, "deep map": b"{a: " * 2000 + b"}" * 2000,
    "missing interpolation": b"data: {padding: '${nope.x}'}",
    "cyclic interpolation": b"data: {padding: '${data.views}', views: '${data.padding}'}",
    "no environment": b"data: {padding: '${oc.env:NOPE_NOPE}'}",
    "unknown resolver": b"data: {padding: '${nope:x}'}", "half interpolation": b"data: {padding: '${'}",
    "date": b"data: {padding: 2001-01-01}", "NaN": b"data: {padding: .nan}",
    "infinite": b"data: {random_erasing: .inf}", "huge": b"data: {padding: 1" + b"0" * 5000 + b"}",
    "class path": b"data: {dataset: {class_path: 3}}", "class number": b"data: {dataset: 3}",
    "class of another kind": b"data: {dataset: {class_path: pplr_lightning.DBSCAN}}",
    "class not known": b"data: {dataset: {class_path: nope.Nope}}",
    "options a list": b"data: {dataset: {class_path: pplr_lightning.data.Market1501, init_args: [1]}}",
    "options not known": b"data: {dataset: {class_path: pplr_lightning.data.Market1501, init_args: {x: 1}}}",
    "callbacks a number": b"trainer: {callbacks: 3}", "callbacks of null": b"trainer: {callbacks: [null]}",
    "logger a number": b"trainer: {logger: 3}", "surrogate": b'data: {cache: "\\ud800"}',
    "control": b'data: {cache: "\\x00"}', "long line": b"data: {cache: " + b"x" * 100_000 + b"}",
}  # fmt: skip


def config_cases(bench: Bench) -> Iterator[Case]:
    """Configs that are none, or hold what no option can be."""
    for what, content in YAMLS.items():
        for command in ("fit",) if len(what) % 2 else ("validate",):
            file = bench.new() / "odd.yaml"
            file.write_bytes(content)
            words = [command, *bench.options(), f"--config={file}"]
            keys = re.findall(rb"[a-z_]{3,}", content[:200])
            named = tuple(key.decode() for key in keys if key not in (b"data",))
            yield Case(f"config {what}", words, ("odd.yaml", *named, "data: "))
    bomb = bench.new() / "bomb.yaml"
    bomb.write_bytes(b"dataset: 3\n" + YAMLS["bomb"])
    for option in ("data", "data.dataset", "model.network", "optimizer", "trainer"):
        yield Case(f"config bomb as {option}", ["fit", *bench.options(), f"--{option}={bomb}"],
                   ("bomb.yaml", option))  # fmt: skip
    fifo = bench.new() / "pipe.yaml"
    os.mkfifo(fifo)
    loop = bench.new() / "loop.yaml"
    loop.symlink_to(loop)
    for file in (
        fifo,
        loop,
        Path("/"),
        Path("/dev/zero"),
        Path("nope.yaml"),
        Path("/proc/self/mem"),
    ):
        yield Case(f"config {file.name or '/'}", ["fit", *bench.options(), f"--config={file}"],
                   (str(file),))  # fmt: skip


def table_cases(bench: Bench) -> Iterator[Case]:
    """Tables of ids for `predict` and `fit`."""
    names = sorted(path.name for path in bench.few.iterdir())
    rows = "".join(f"{name},{n % 3}\n" for n, name in enumerate(names))
    head = "path,camera_id\n"
    good = (head + rows).encode()
    tables: dict[str, bytes] = {
        "empty": b"", "head alone": head.encode(), "no head": rows.encode(),
        "cut off": good[:-9], "Latin-1": good + b"\xe4.png,1\n",
        "UTF-16": good.decode().encode("utf-16"), "UTF-32": good.decode().encode("utf-32"),
        "BOM": b"\xef\xbb\xbf" + good, "zeros": good + b"\0\0\0\0", "binary": bytes(range(256)) * 9,
        "row twice": good + rows.splitlines(keepends=True)[0].encode(),
        "row twice by ./": good + b"./" + rows.splitlines(keepends=True)[0].encode(),
        "a column too many": good + f"{names[0]},1,2\n".encode(),
        "a column too few": good + f"{names[0]}\n".encode(),
        "column twice": good.replace(b"path,camera_id", b"path,camera_id,camera_id"),
        "other columns": good.replace(b"camera_id", b"camera"),
        "no path": good.replace(b"path", b"file"), "semicolons": good.replace(b",", b";"),
        "tabs": good.replace(b",", b"\t"), "quotes": good + b'"a,1\n', "spaces": good.replace(b",", b", "),
        "carriage returns": good.replace(b"\n", b"\r"), "CRLF": good.replace(b"\n", b"\r\n"),
        "words": good.replace(b",1\n", b",first\n"), "NaN": good.replace(b",1\n", b",nan\n"),
        "floats": good.replace(b",1\n", b",1.0\n"), "halves": good.replace(b",1\n", b",1.5\n"),
        "negative": good.replace(b",1\n", b",-7\n"), "huge": good.replace(b",1\n", b",1" + b"0" * 30 + b"\n"),
        "19 digits": good.replace(b",1\n", b",9999999999999999999\n"),
        "other digits": good.replace(b",1\n", ",１\n".encode()), "blank ids": good.replace(b",1\n", b",\n"),
        "missing row": (head + "".join(rows.splitlines(keepends=True)[1:])).encode(),
        "surplus row": good + b"nope.png,1\n", "absolute": good.replace(names[0].encode(), str(bench.few / names[0]).encode()),
        "backslashes": good.replace(names[0].encode(), b"few\\" + names[0].encode()),
        "case": good.replace(b"png", b"PNG"), "long field": good + b"x" * 200_000 + b",1\n",
        "long line": good + b"x," * 100_000 + b"\n", "blank lines": good.replace(b"\n", b"\n\n"),
        "JSON": b'{"path": 1}', "page": b"<html>path,camera_id</html>",
    }  # fmt: skip
    for what, content in tables.items():
        file = bench.new() / "odd.csv"
        file.write_bytes(content)
        yield Case(f"table {what}", bench.predict(f"--data.table={file}"), ("odd.csv", "camera"))
    for what in ("UTF-16", "row twice", "missing row", "huge", "other digits", "words"):
        file = bench.new() / "odd.csv"
        file.write_bytes(tables[what])
        words = [
            "fit", *bench.options(), "--data.dataset=pplr_lightning.data.ImageFolder",
            f"--data.dataset.root={bench.few}", f"--data.dataset.csv={file}",
        ]  # fmt: skip
        yield Case(f"table of fit {what}", words, ("odd.csv", "camera"))
    fifo = bench.new() / "pipe.csv"
    os.mkfifo(fifo)
    for file in (fifo, Path("/dev/zero"), Path("/dev/null"), bench.few):
        yield Case(f"table {file}"[:40], bench.predict(f"--data.table={file}"), (str(file),))


def pictures(bench: Bench) -> dict[str, Callable[[Path], Any]]:
    """What writes something other than a good picture under a name."""
    source = sorted(bench.few.iterdir())[0]
    content = source.read_bytes()
    jpeg = io.BytesIO()
    Image.open(source).convert("RGB").save(jpeg, "JPEG")
    gif, tiff, draw = io.BytesIO(), io.BytesIO(), random.Random(0)
    Image.open(source).convert("L").save(gif, "GIF")
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tiff, "TIFF")

    def flipped(data: bytes, at: int) -> bytes:
        return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]

    made: dict[str, bytes] = {
        "empty": b"", "a text": b"no picture", "zeros": bytes(1000), "page": b"<html></html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\n", "cut off": content[: len(content) // 2],
        "head alone": content[:16], "last byte gone": content[:-20], "JPEG cut off": jpeg.getvalue()[:-300],
        "surplus": content + b"surplus", "JPEG head": jpeg.getvalue()[:20], "GIF": gif.getvalue(),
        "GIF cut off": gif.getvalue()[:40], "TIFF of NaN": tiff.getvalue(), "TIFF head": b"II*\0\xff\xff\xff\xff",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "PPM of no size": b"P6 0 0 255\n",
        "PPM huge": b"P6 60000 60000 255\n", "PPM negative": b"P6 -1 4 255\n", "BMP head": b"BM" + bytes(40),
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a pickle": b"\x80\x04\x95", "ICO": b"\0\0\1\0\1\0",
        "PNG size 0": content[:16] + bytes(8) + content[24:],
        "PNG huge": content[:16] + b"\x7f\xff\xff\xff\x7f\xff\xff\xff" + content[24:],
        "WebP head": b"RIFF\x24\0\0\0WEBPVP8 ", "PSD": b"8BPS\0\1" + bytes(20), "DDS": b"DDS " + bytes(124),
    }  # fmt: skip
    for number in range(5):
        made[f"PNG flipped {number}"] = flipped(content, draw.randrange(len(content)))
        made[f"JPEG flipped {number}"] = flipped(
            jpeg.getvalue(), draw.randrange(len(jpeg.getvalue()))
        )
    writers: dict[str, Callable[[Path], Any]] = {
        what: (lambda path, data=data: path.write_bytes(data)) for what, data in made.items()
    }
    writers |= {
        "pipe": lambda path: os.mkfifo(path), "folder": lambda path: path.mkdir(),
        "dangling link": lambda path: path.symlink_to("nope"),
        "link to itself": lambda path: path.symlink_to(path),
        "link to a device": lambda path: path.symlink_to("/dev/zero"),
        "link to memory": lambda path: path.symlink_to("/proc/self/mem"),
        "sparse": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2**36),
        "CMYK": lambda path: Image.new("CMYK", (8, 8)).save(path, "JPEG"),
        "one pixel": lambda path: Image.new("1", (1, 1)).save(path, "PNG"),
        "a long stripe": lambda path: Image.new("L", (20_000, 1)).save(path, "PNG"),
        "a bomb": lambda path: Image.new("1", (20_000, 20_000)).save(path, "PNG"),
        "no transparency": lambda path: Image.new("LA", (8, 8)).save(path, "PNG"),
    }  # fmt: skip
    return writers


def picture_cases(bench: Bench) -> Iterator[Case]:
    """Pictures that are none, for `predict`, `search` and `fit`."""
    for number, (what, write) in enumerate(pictures(bench).items()):
        for command in ("predict", "search") if number % 2 else ("search", "fit"):
            folder = bench.new()
            odd = folder / ("odd.jpg" if "JPEG" in what else "odd.png")
            write(odd)
            for path in list(bench.few.iterdir())[:3] if command != "search" else []:
                shutil.copy(path, folder)
            words = {
                "predict": bench.predict(root=folder),
                "search": bench.search("--query", str(odd)),
                "fit": [
                    "fit", *bench.options(), "--data.dataset=pplr_lightning.data.ImageFolder",
                    f"--data.dataset.root={folder}", "--pseudo_labels.labeler=Instances",
                    "--data.batch_size=4", "--data.instances=1", "--model.network.norm_batch_size=4",
                    "--model.agreement_k=2",
                ],
            }[command]  # fmt: skip
            yield Case(f"picture of {command}: {what}", words, (odd.name, "k1", "neighbo"))


def files(source: Path, seed: int, most: int) -> dict[str, bytes]:
    """Spoils a file: cut off, turned bits, zeros, doubled, and what is another file altogether."""
    content, draw = source.read_bytes(), random.Random(seed)
    found = {
        "empty": b"", "a text": b"nothing", "zeros": bytes(len(content)), "doubled": content * 2,
        "page": b"<!doctype html><html>", "pointer": b"version https://git-lfs.github.com/spec/v1\n",
        "half": content[: len(content) // 2], "last byte gone": content[:-1], "first gone": content[1:],
        "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(99), "reversed": content[::-1],
    }  # fmt: skip
    for number in range(most):
        at = draw.randrange(len(content)) if number % 2 else draw.randrange(min(400, len(content)))
        found[f"turned at {at}"] = content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]
    for _ in range(most // 2):
        at = draw.randrange(1, len(content))
        found[f"cut at {at}"] = content[:at]
    return found


class Evil:
    """Would make a folder when it is read."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def checkpoint_cases(bench: Bench) -> Iterator[Case]:
    """Checkpoints that are none, or whose fields are of another kind, for all who read them."""

    def readers(path: Path) -> list[tuple[str, list[str]]]:
        return [
            ("fit", ["fit", *bench.options(), f"--ckpt_path={path}", "--trainer.max_epochs=2"]),
            ("weights", ["fit", *bench.options(), f"--model.network.weights={path}"]),
            ("validate", ["validate", *bench.options(), f"--ckpt_path={path}"]),
            ("export", ["export", f"--ckpt_path={path}", "--format=torch", "--out=a.pt2"]),
            ("convert", ["convert", str(path), "other.ckpt"]),
            ("predict", [*bench.predict(), f"--ckpt_path={path}"]),
            ("search", bench.search(f"--ckpt_path={path}")),
        ]

    turn = 0
    for what, content in files(bench.checkpoint, 1, 12).items():
        path = bench.new() / "odd.ckpt"
        path.write_bytes(content)
        turn += 1
        reader, words = readers(path)[turn % 7]
        yield Case(f"checkpoint of {reader}: {what}", words, ("odd.ckpt",))
    good = torch.load(bench.checkpoint, weights_only=True)
    weights = {k: v for k, v in good["state_dict"].items() if isinstance(v, torch.Tensor)}
    first = next(iter(weights))
    floats = {k: v for k, v in weights.items() if v.is_floating_point()}
    nan = {k: torch.full_like(v, torch.nan) if k in floats else v for k, v in weights.items()}
    odd: dict[str, Any] = {
        "a list": [1], "a number": 3, "None": None, "a tensor": torch.ones(3), "no field": {},
        "code": {**good, "evil": Evil()}, "weights of NaN": {**good, "state_dict": nan},
        "weights huge": {**good, "state_dict": {k: v * 1e38 if k in floats else v for k, v in weights.items()}},
        "weights of text": {**good, "state_dict": dict.fromkeys(weights, "x")},
        "weights integers": {**good, "state_dict": {k: v.long() for k, v in weights.items()}},
        "weights complex": {**good, "state_dict": {k: v.to(torch.complex64) for k, v in weights.items()}},
        "weights empty": {**good, "state_dict": {k: v[..., :0] if v.ndim else v for k, v in weights.items()}},
        "weights meta": {**good, "state_dict": {k: v.to("meta") for k, v in weights.items()}},
        "weights sparse": {**good, "state_dict": {k: v.to_sparse() if v.ndim == 2 else v for k, v in weights.items()}},
        "one missing": {**good, "state_dict": {k: v for k, v in weights.items() if k != first}},
        "one surplus": {**good, "state_dict": {**weights, "nope": torch.ones(2)}},
        "one transposed": {**good, "state_dict": {k: v.T if v.ndim == 2 else v for k, v in weights.items()}},
        "keys numbers": {**good, "state_dict": dict(enumerate(weights.values()))},
        "no options": {k: v for k, v in good.items() if k != "hyper_parameters"},
    }  # fmt: skip
    for number, field in enumerate(good):
        values = some((None, {}, [], "x", -1), number)
        odd |= {f"{field} {value!r}": {**good, field: value} for value in values}
    options = good["hyper_parameters"]
    for number, (name, value) in enumerate(options.items()):
        odd |= {
            f"option {name} {other!r}": {**good, "hyper_parameters": {**options, name: other}}
            for other in some((None, "nope", -1, float("nan"), [], {"x": 1}), number)
            if other != value
        }
    for what, content in odd.items():
        path = bench.new() / "odd.ckpt"
        torch.save(content, path)
        turn += 1
        reader, words = readers(path)[turn % 7]
        yield Case(f"checkpoint of {reader}: {what}", words, ("odd.ckpt", "weights", "finite"))
    fifo = bench.new() / "odd.ckpt"
    os.mkfifo(fifo)
    for reader, words in readers(fifo):
        yield Case(f"checkpoint of {reader}: pipe", words, ("odd.ckpt",))


def gallery_cases(bench: Bench) -> Iterator[Case]:
    """Embeddings and galleries that somebody changed."""
    for what, content in files(bench.embeddings, 2, 10).items():
        path = bench.new() / "odd.parquet"
        path.write_bytes(content)
        new = ["index", f"--embeddings={path}", f"--out={path.parent / 'new'}"]
        add = ["index", f"--index={bench.gallery}", f"--add={path}", f"--out={path.parent / 'new'}"]
        yield Case(f"embeddings {what}", add if len(what) % 3 == 0 else new, ("odd.parquet",))
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(bench.embeddings)
    columns = {name: table[name] for name in table.column_names}
    changed: dict[str, Any] = {"no column": table.select([]), "no rows": table.slice(0, 0)}
    for number, name in enumerate(columns):
        changed[f"without {name}"] = table.drop_columns([name])
        kinds = (
            ("null", None),
            ("text", "x"),
            ("floats", 0.5),
            ("lists", [math.nan]),
            ("huge", 2**62),
        )
        for what, value in some(kinds, number):
            values = [value] * len(table)
            at = table.column_names.index(name)
            changed[f"{name} of {what}"] = table.set_column(at, name, pa.array(values))
    changed["no metadata"] = table.replace_schema_metadata({})
    for key in table.schema.metadata or {}:
        for value in (b"", b"{}", b"null", b"\xff", b'{"weights": 3}'):
            metadata = {**table.schema.metadata, key: value}
            changed[f"{key!r} {value!r}"] = table.replace_schema_metadata(metadata)
    changed["rows twice"] = pa.concat_tables([table, table])
    for what, content in changed.items():
        path = bench.new() / "odd.parquet"
        pq.write_table(content, path)
        words = ["index", f"--embeddings={path}", f"--out={path.parent / 'new'}"]
        yield Case(f"embeddings {what}", words, ("odd.parquet",))
    for name in ("index.faiss", "items.parquet", "meta.json"):
        for what, content in files(bench.gallery / name, 3, 4).items():
            gallery = bench.copy(bench.gallery)
            (gallery / name).write_bytes(content)
            change = ["index", f"--index={gallery}", f"--add={bench.embeddings}", "--out=new"]
            words = change if len(what) % 3 == 0 else bench.search(gallery=gallery)
            yield Case(
                f"gallery {name} {what}",
                words,
                (str(gallery), "checkpoint", "in the gallery already"),
            )
    meta = json.loads((bench.gallery / "meta.json").read_text())
    for number, field in enumerate(meta):
        for value in some((None, -1, "x", [], {}, math.nan, 2**70), number):
            gallery = bench.copy(bench.gallery)
            (gallery / "meta.json").write_text(json.dumps({**meta, field: value}))
            yield Case(f"gallery {field} {value!r}", bench.search(gallery=gallery), (str(gallery),))
    for number, field in enumerate(meta["fingerprint"]):
        for value in some((None, -1, "x", [], {}), number):
            gallery = bench.copy(bench.gallery)
            fingerprint = {**meta["fingerprint"], field: value}
            (gallery / "meta.json").write_text(json.dumps({**meta, "fingerprint": fingerprint}))
            yield Case(f"gallery fingerprint {field} {value!r}", bench.search(gallery=gallery),
                       (str(gallery), "checkpoint"))  # fmt: skip


def run_folder_cases(bench: Bench) -> Iterator[Case]:
    """Run folders that somebody else left."""
    names = ("history.csv", "summary.json", "config.yaml", "environment.json", "metrics.csv")
    for turn, name in enumerate(names):
        for what, content in some(list(files(bench.run_folder / name, 4, 8).items()), turn):
            folder = bench.copy(bench.run_folder)
            (folder / name).write_bytes(content)
            yield Case(f"run {name} {what}", ["report", str(folder)], (str(folder),))
        for what in some(("pipe", "folder", "link to a device", "sparse", "link to itself"), turn):
            folder = bench.copy(bench.run_folder)
            (folder / name).unlink()
            pictures(bench)[what](folder / name)
            yield Case(f"run {name} {what}", ["report", str(folder)], (str(folder),))
    for what, content in some(list(YAMLS.items()), 0):
        folder = bench.copy(bench.run_folder)
        (folder / "config.yaml").write_bytes(content)
        yield Case(f"run config.yaml {what}", ["report", str(folder)], (str(folder),))
    for number, value in enumerate(("nan", "-1", "x", "1e400", "", "1:30", "9" * 400, "<b>")):
        folder = bench.copy(bench.run_folder)
        text = (folder / "history.csv").read_text()
        head, *rows = text.splitlines()
        rows = [",".join([value] * len(row.split(","))) for row in rows] if number % 2 else rows
        rows = rows if number % 2 else [re.sub(r"[\d.]+", value, row, count=3) for row in rows]
        (folder / "history.csv").write_text("\n".join([head, *rows]))
        yield Case(f"run history.csv of {value[:9]}", ["report", str(folder)], (str(folder),))
    for what, write in some(list(pictures(bench).items()), 1):
        folder = bench.copy(bench.run_folder)
        (folder / "figures").mkdir(exist_ok=True)
        write(folder / "figures/ranking-epoch0.png")
        yield Case(f"run figure {what}", ["report", str(folder)], (str(folder),))


KINDS = (
    run_folder_cases, gallery_cases, checkpoint_cases, picture_cases, table_cases, config_cases,
    word_cases, option_cases,
)  # fmt: skip


def reason(case: Case) -> str | None:
    """Tells why a case may be accepted, if it may."""
    return next((why for pattern, why in ACCEPTED.items() if re.match(pattern, case.name)), None)


def trials(
    bench: Bench, *, only: str = "", sample: int | None = None, seed: int = 0
) -> Iterator[Result]:
    """Runs all cases, or some of each kind."""
    for kind in KINDS:
        cases = [case for case in kind(bench) if only in case.name]
        if sample is not None:
            cases = random.Random(seed).sample(cases, min(len(cases), sample))
        for case in cases:
            yield bench.attempt(case)


def main() -> None:
    """Prints what is not as wanted, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--sample", type=int, help="so many of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", WANDB_MODE="offline", HF_HUB_OFFLINE="1")
    os.chdir(ROOT)  # where the server finds what it imports
    counts: dict[str, Counter[str]] = {}
    bad, started = 0, time.monotonic()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        bench = Bench(Path(folder))
        bench.server.set_forkserver_preload(["tests.preloaded"])
        bench.prepare()
        for result in trials(bench, only=options.only, sample=options.sample, seed=options.seed):
            why = reason(result.case) if result.end == TAKEN else None
            fine = result.end == LINE or why is not None
            bad += not fine
            if options.verbose or not fine:
                print(
                    f"{result.end:9s} {result.case.name[:90]!r}: {result.line[:300]!r}", flush=True
                )
            counts.setdefault(result.case.name.partition(" ")[0], Counter())[result.end] += 1
    print(f"\n{'input':12s}" + "".join(f"{end:>11s}" for end in ENDS))
    total = Counter[str]()
    for kind, found in counts.items():
        total += found
        print(f"{kind:12s}" + "".join(f"{found[end]:11d}" for end in ENDS))
    print(f"{'all':12s}" + "".join(f"{total[end]:11d}" for end in ENDS))
    print(f"{total.total()} cases in {time.monotonic() - started:.0f} s; {bad} not as wanted")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
