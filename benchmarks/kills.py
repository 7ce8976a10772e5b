"""Kills runs at random moments, lets them go on, and compares where they end.

    python benchmarks/kills.py --kills 30 --seed 0
    python benchmarks/kills.py --kills 10 --processes 2

A run that nobody stops gives the weights, optimiser and schedule to end with. Then runs of the same
command with `--ckpt_path last` are killed (SIGKILL or SIGTERM, three times each) while they label,
take their first batch, are in the middle of an epoch, validate or write a checkpoint; after each
kill every checkpoint must be readable, and after the last the run must end in the same bits.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback

from pplr_lightning.data import SyntheticReID

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("labelling", "first batch", "middle of an epoch", "validation", "writing a checkpoint")
PATIENCE = 300.0  # seconds for a process to end, or to come to a stage


class Stages(Callback):
    """Writes the stage that a run comes to into a file, one line each."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def _write(self, trainer: Any, stage: str) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            with self.file.open("a") as lines:
                lines.write(f"{stage}\n")

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """The label stage is the next thing to happen."""
        self._write(trainer, "labelling")

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step begins."""
        self._write(trainer, "middle of an epoch" if batch_idx else "first batch")

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Validation begins."""
        self._write(trainer, "validation")


class Bench(NamedTuple):
    """Runs of one command in folders of their own."""

    folder: Path
    workers: int = 0
    processes: int = 1

    def draw(self) -> None:
        """Draws the images, once."""
        SyntheticReID(
            self.folder / "set", train_identities=12, test_identities=6, images_per_identity=8,
            image_size=(64, 32), distractors=4, junk=3,
        ).prepare()  # fmt: skip

    def start(self, name: str, *, workers: int | None = None) -> subprocess.Popen[str]:
        """Starts, or goes on with, the run of this name."""
        run = self.folder / name
        run.mkdir(exist_ok=True)
        (run / "stages").write_text("")
        saving = "--trainer.callbacks+=ModelCheckpoint"
        words = [
            sys.executable, "-m", "pplr_lightning", "fit", "--ckpt_path=last",
            f"--config={ROOT / 'configs/demo.yaml'}",
            "--data.dataset=pplr_lightning.data.Market1501",
            f"--data.dataset.init_args.root={self.folder / 'set'}",
            "--data.image_size=[64,32]", "--data.batch_size=16", "--data.iterations=5",
            f"--data.num_workers={self.workers if workers is None else workers}",
            "--model.network.norm_batch_size=8", "--model.max_clusters=64",
            "--model.agreement_k=4", "--lr_scheduler.step_size=1",
            "--pseudo_labels.labeler.k1=6", "--pseudo_labels.labeler.k2=2",
            "--pseudo_labels.labeler.min_samples=2", "--evaluation.before_training=false",
            "--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=1",
            "--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false", f"--trainer.logger.init_args.save_dir={run}",
            "--trainer.callbacks=[]",
            "--trainer.callbacks+=kills.Stages", f"--trainer.callbacks.file={run / 'stages'}",
            saving, "--trainer.callbacks.filename=step",
            "--trainer.callbacks.every_n_train_steps=2",
            "--trainer.callbacks.enable_version_counter=false",
            saving, "--trainer.callbacks.filename=last",
            "--trainer.callbacks.save_on_train_epoch_end=true",
            "--trainer.callbacks.enable_version_counter=false",
        ]  # fmt: skip
        if self.processes > 1:
            words += [f"--trainer.devices={self.processes}", "--trainer.strategy=ddp"]
        paths = [str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))
        }  # fmt: skip
        with (run / "output").open("a") as output:
            return subprocess.Popen(
                words, stdout=output, stderr=output, text=True, cwd=ROOT, env=environment,
                start_new_session=True,
            )  # fmt: skip

    def finish(self, name: str) -> dict[str, Any]:
        """Lets the run go on to its end and returns what it ends with."""
        process = self.start(name)
        if process.wait(PATIENCE) != 0:
            raise RuntimeError((self.folder / name / "output").read_text())
        newest = max(self.checkpoints(name, "last.ckpt"), key=lambda path: path.stat().st_mtime_ns)
        checkpoint = torch.load(newest, weights_only=True)
        return {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "lr_schedulers")}

    def kill(self, name: str, stage: str, number: int, signum: int, delay: float) -> int | None:
        """Starts the run and kills it in a stage.

        Args:
            name: Of the run.
            stage: One of `STAGES`.
            number: The how-manieth of its kind in this process.
            signum: SIGKILL or SIGTERM.
            delay: Seconds after the stage began.

        Returns:
            How it ended; None where it came to its own end before.

        Raises:
            TimeoutError: It, or a process that it started, was still there much later.
        """
        process = self.start(name)
        if not self._await(process, name, stage, number):
            return None
        time.sleep(delay)
        if process.poll() is not None:
            return None
        process.send_signal(signum)
        code = process.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while _alive(process.pid):
            if time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                raise TimeoutError(f"{name}: processes are left behind")
            time.sleep(0.1)
        return code

    def _await(self, process: subprocess.Popen[str], name: str, stage: str, number: int) -> bool:
        deadline, seen, writing = time.monotonic() + PATIENCE, 0, False
        while process.poll() is None and time.monotonic() < deadline:
            if stage == "writing a checkpoint":
                now = any((self.folder / name).rglob("*.part"))
                seen, writing = seen + (now and not writing), now
            else:
                seen = (self.folder / name / "stages").read_text().splitlines().count(stage)
            if seen >= number:
                return True
            time.sleep(0.002)
        return False

    def checkpoints(self, name: str, pattern: str = "*.ckpt") -> list[Path]:
        """Lists the checkpoints of a run, over all its version folders."""
        return list((self.folder / name).rglob(pattern))


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def same(left: Any, right: Any) -> bool:
    """Tells whether two nested states are equal to the last bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def trials(
    bench: Bench, kills: int, seed: int, per_run: int = 3
) -> Iterator[tuple[Counter[str], bool]]:
    """Kills runs until there were enough kills; yields each run's kills and whether it ended well.

    Raises:
        RuntimeError: A checkpoint could not be read after a kill, or a run did not go on.
    """
    draw = random.Random(seed)
    bench.draw()
    expected = bench.finish("whole")
    plan = [(stage, s) for stage in STAGES for s in (signal.SIGKILL, signal.SIGTERM)]
    done, run = 0, 0
    while done < kills:
        run += 1
        name, counts = f"run-{run}", Counter[str]()
        for _ in range(per_run):
            if not plan:
                plan = [(stage, s) for stage in STAGES for s in (signal.SIGKILL, signal.SIGTERM)]
            stage, signum = plan.pop(draw.randrange(len(plan)))
            delay = draw.uniform(0.0, 0.03 if stage == "writing a checkpoint" else 0.3)
            code = bench.kill(name, stage, draw.randint(1, 2), signum, delay)
            if code is None:
                plan.append((stage, signum))  # it was through: another one shall meet this
                break
            counts[f"{signal.Signals(signum).name} {stage}: {code}"] += 1
            for path in bench.checkpoints(name):
                torch.load(path, weights_only=True)
        done += sum(counts.values())
        yield counts, same(bench.finish(name), expected)


def main() -> None:
    """Prints a line per run and the sum."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="loader workers per process")
    parser.add_argument("--processes", type=int, default=1, help="over gloo, on the CPU")
    options = parser.parse_args()
    total, runs, well = Counter[str](), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.workers, options.processes)
        for counts, identical in trials(bench, options.kills, options.seed):
            runs, well, total = runs + 1, well + identical, total + counts
            print("identical" if identical else "DIFFERENT", dict(counts), flush=True)
    for line, count in sorted(total.items()):
        print(f"{count:4d}  {line}")
    print(f"{total.total()} kills in {runs} runs, {well} of them ended in identical bits")
    sys.exit(well != runs)


if __name__ == "__main__":
    main()
