"""Gives every command bad input and counts how it ends: one clear line is wanted, and no other way.

    python benchmarks/bad_inputs.py                      # all, ten minutes of one core
    python benchmarks/bad_inputs.py --only picture       # those whose name holds a word
    python benchmarks/bad_inputs.py --sample 20 --seed 1

Bad command lines, configs, tables, pictures, checkpoints, embeddings, galleries, run folders and
places, which `bad_input_cases/` holds, a file for each kind. Each is the real command in a process
of its own, which is forked from one that has imported the library; a training that starts is
stopped at its first step. What is accepted has to be in `bad_input_cases/accepted.py`, with the
reason. The exit code is 0 if there is no traceback, no hang, no message that fails to name what is
wrong, and no acceptance without a reason.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bad_input_cases import ENDS, KINDS, LINE, TAKEN, Bench, Result, reason

ROOT = Path(__file__).resolve().parents[1]


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
