"""Kills each command that writes at each of its steps in the file system, and starts it again.

    python benchmarks/kill_steps.py                      # all, some minutes of one core
    python benchmarks/kill_steps.py --only index         # those whose name holds a word

`fit`, `predict`, `index` (new, --add, --remove), `export`, `report`, `labels`, `crops` and
`convert`. A step is a file that is opened for writing, a name given, changed or taken, or a folder
made or removed; the process is killed (SIGKILL) right before it. Then what the command writes must
be what was there before or what a run without a kill leaves, never half of it, also where another
command reads it first; the same command must do what is left; and after that the folder must hold
no file more than after a run without a kill. (`fit` goes on in a folder of its own: of it the
checkpoints must be readable, the weights at its end the same to the last bit, and no file left half
written.)
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from bad_input_cases import Bench, crops, video

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120.0
STEPS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}


class Command(NamedTuple):
    """A command that writes.

    Attributes:
        name: Of it.
        words: The command line, to be run in a folder of its own.
        there: What the folder holds before, copied from.
        read: Gives what the folder's files say, to be compared; fails where one is half.
    """

    name: str
    words: list[str]
    there: dict[str, Path]
    read: Callable[[Path], Any]


def commands(bench: Bench) -> list[Command]:
    """Lists them, each with the good input of a bench."""
    predict = [
        word for word in bench.predict("--data.batch_size=4") if not word.startswith("--out")
    ]
    labels = [word for word in bench.labels() if not word.startswith("--out")]
    fit = bench.options(Path("runs"))
    checkpoint = f"--ckpt_path={bench.checkpoint}"
    others = bench.folder / "others.parquet"
    one = next(bench.few.iterdir())
    gallery, run = {"some.index": bench.gallery}, {"run": bench.run_folder}
    index = ["index", "--index=some.index"]
    theirs = str(bench.folder / "theirs.pth")
    convert = ["convert", theirs, "o.ckpt", "--backbone=resnet18.tv_in1k"]
    boxes, frames = bench.folder / "video/boxes.txt", bench.folder / "video/frames"
    export = ["export", checkpoint, "--format=torch", "--out=a.pt2"]
    new = ["index", f"--embeddings={bench.embeddings}", "--out=some.index"]
    return [
        Command("index, new", new, {}, read_gallery),
        Command("index --add", [*index, f"--add={others}"], gallery, read_gallery),
        Command("index --remove", [*index, "--remove", str(one)], gallery, read_gallery),
        Command("predict", [*predict, "--out=e.parquet"], {}, read_embeddings),
        Command("report", ["report", "run"], run, read_report),
        Command("labels", [*labels, "--out=labels"], {}, read_labels),
        Command("crops", crops(boxes, frames, Path("cut")), {}, read_crops),
        Command("convert", convert, {}, read_weights),
        Command("export", export, {}, read_program),
        Command("fit", ["fit", *fit, "--ckpt_path=last", "--trainer.max_epochs=2"], {}, read_run),
    ]


def prepare(bench: Bench) -> None:
    """Makes what is read beside the good input of a bench."""
    from pplr_lightning import PartNetwork, PPLRModule
    from pplr_lightning.weights.layouts import Weights, to_official

    bench.prepare()
    (bench.folder / "video").mkdir()
    video(bench.folder / "video")
    folder = bench.new()
    for path in sorted(bench.images.iterdir())[12:16]:
        shutil.copy(path, folder)
    run(bench, bench.predict(root=folder, out=bench.folder / "others.parquet"), folder)
    network = PartNetwork("resnet18.tv_in1k", weights=None, image_size=(64, 32))
    state = PPLRModule(network, max_clusters=5).state_dict()
    tensors = {name: one for name, one in state.items() if isinstance(one, torch.Tensor)}
    ours = {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
    torch.save(to_official(Weights("ours", None, ours)), bench.folder / "theirs.pth")


def read_gallery(folder: Path) -> Any:
    """Reads paths and vectors of a gallery, as a search does."""
    from pplr_lightning import Gallery

    try:
        gallery = Gallery.load(folder / "some.index")
    except FileNotFoundError:
        return None
    return gallery.items.to_pylist(), gallery.vectors(torch.arange(len(gallery))).tolist()


def read_embeddings(folder: Path) -> Any:
    """Reads paths and vectors of embeddings."""
    from pplr_lightning import read_embeddings

    if not (folder / "e.parquet").exists():
        return None
    found = read_embeddings(folder / "e.parquet")
    return found.items.to_pylist(), found.vectors[:].tolist()


def read_report(folder: Path) -> Any:
    """Tells whether a page goes to its end; it names the folder, another each time."""
    page = folder / "run/report.html"
    return page.read_text().rstrip().endswith("</html>") if page.exists() else None


def read_labels(folder: Path) -> Any:
    """Reads a folder of labels: names and texts."""
    paths = sorted((folder / "labels").glob("*"))
    if not (folder / "labels").exists():
        return None
    return [
        (path.name, path.read_text() if path.suffix in (".csv", ".yaml") else "") for path in paths
    ]


def read_crops(folder: Path) -> Any:
    """Reads a table of crops and its images; before there is a table, nothing is done."""
    import pyarrow.parquet as pq

    if not (folder / "cut/crops.parquet").exists():
        return None
    rows = pq.read_table(folder / "cut/crops.parquet").to_pylist()
    return rows, [(folder / "cut" / row["path"]).read_bytes().hex() for row in rows]


def read_weights(folder: Path) -> Any:
    """Reads the weights of a converted checkpoint."""
    path = folder / "o.ckpt"
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True)["state_dict"]
    return {
        name: tensor.tolist() for name, tensor in state.items() if isinstance(tensor, torch.Tensor)
    }


def read_program(folder: Path) -> Any:
    """Runs an exported program."""
    if not (folder / "a.pt2").exists():
        return None
    with (folder / "a.pt2").open("rb") as file:
        return torch.export.load(file).module()(torch.ones(2, 3, 64, 32)).tolist()


def read_run(folder: Path) -> Any:
    """Reads every checkpoint of a run; gives the weights of the one that has come farthest."""
    found = [torch.load(path, weights_only=True) for path in folder.rglob("*.ckpt")]
    last = max(found, key=lambda one: one["global_step"], default=None)
    if last is None or last["epoch"] < 1:
        return None  # there is more to do
    return {n: t.tolist() for n, t in last["state_dict"].items() if isinstance(t, torch.Tensor)}


def _started(words: list[str], folder: str, counted: str, step: int) -> None:
    """Runs a command line in a folder, counts its steps there, and dies before one of them."""
    from pplr_lightning.cli import main

    os.setsid()
    os.chdir(folder)
    with open(f"{counted}.err", "w") as err:
        os.dup2(err.fileno(), 1)
        os.dup2(err.fileno(), 2)
    torch.set_num_threads(1)
    numbers = os.open(counted, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            mode = mode or ""
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or any(
                c in mode for c in "wax+"
            )
            if not writes:
                return
        elif event not in STEPS:
            return
        path = arguments[0]
        if not isinstance(path, (str, bytes)) or not _within(os.fsdecode(path), folder):
            return
        done = os.lseek(numbers, 0, os.SEEK_END) + 1
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(numbers, b".")

    sys.addaudithook(hook)
    sys.argv = ["pplr_lightning", *words]
    main(words)


def _within(path: str, folder: str) -> bool:
    return os.path.abspath(path).startswith(folder)


def run(bench: Bench, words: list[str], folder: Path, step: int = 0) -> tuple[int | None, int, str]:
    """Runs a command line, up to a step if one is given.

    Returns:
        Its exit code, the steps that it came through, and the last line that it wrote.
    """
    with tempfile.TemporaryDirectory() as beside:
        counted = Path(beside) / "steps"
        process = bench.server.Process(
            target=_started, args=(words, str(folder), str(counted), step)
        )
        process.start()
        process.join(PATIENCE)
        if process.is_alive():
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
        lines = Path(f"{counted}.err").read_text(errors="replace").strip().splitlines()
        steps = counted.stat().st_size if counted.exists() else 0
    return process.exitcode, steps, lines[-1] if lines else ""


def listing(folder: Path) -> list[str]:
    """Lists all files and folders below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def trials(bench: Bench, only: str = "", every: int = 1) -> Iterator[tuple[str, int, list[str]]]:
    """Kills each command at each step; yields its name, the steps, and what was not as wanted.

    Args:
        bench: That is prepared.
        only: What the name of a command must hold.
        every: Of how many steps one is killed at.
    """
    for command in commands(bench):
        if only not in command.name:
            continue

        def start(
            step: int, command: Command = command
        ) -> tuple[Path, tuple[int | None, int, str]]:
            folder = bench.new()
            for name, source in command.there.items():
                shutil.copytree(source, folder / name)
            return folder, run(bench, command.words, folder, step)

        whole, (code, steps, line) = start(0)
        if code != 0:
            raise RuntimeError(f"{command.name}: {code}, {line}")
        after, files = command.read(whole), listing(whole)
        empty = bench.new()
        for name, source in command.there.items():
            shutil.copytree(source, empty / name)
        before, wrong = command.read(empty), list[str]()
        for step in range(1, steps + 1, every):
            folder, (code, *_) = start(step)
            if code != -signal.SIGKILL:
                wrong.append(f"step {step}: was not killed, but ended with {code}")
            try:
                found = command.read(folder)
            except Exception as error:  # whatever a reader says of half a file
                wrong.append(f"step {step}: half written ({error})")
                continue
            if found not in (before, after):
                wrong.append(f"step {step}: neither what was there before nor what is to be")
            code, _, line = run(bench, command.words, folder)
            if command.read(folder) != after:
                wrong.append(f"step {step}: the second start ended with {code}, {line!r}")
            left = [name for name in listing(folder) if name not in files]
            if command.name == "fit":  # in a folder of its own
                left = [name for name in left if name.endswith(".part")]
            if left:
                wrong.append(f"step {step}: left over: {', '.join(left[:3])}")
            shutil.rmtree(folder, ignore_errors=True)
        yield command.name, len(range(1, steps + 1, every)), wrong


def main() -> None:
    """Prints a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="commands whose name holds this")
    parser.add_argument("--every", type=int, default=1, help="kill at one of so many steps")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", WANDB_MODE="offline", HF_HUB_OFFLINE="1")
    os.chdir(ROOT)  # where the server finds what it imports
    kills, faults, began = 0, 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        bench.server.set_forkserver_preload(["tests.preloaded"])
        prepare(bench)
        for name, steps, wrong in trials(bench, options.only, options.every):
            print(f"{name:16s} {steps:4d} kills, {len(wrong)} not as wanted", flush=True)
            for line in wrong:
                print(f"  {line}", flush=True)
            kills, faults = kills + steps, faults + len(wrong)
    print(f"{kills} kills in {time.monotonic() - began:.0f} s; {faults} not as wanted")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
