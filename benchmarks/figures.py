"""Which share of a training's processor time its figures take.

    python benchmarks/figures.py --config configs/demo.yaml --data.num_workers 0

The options are those of `fit`. Without loader workers, all of the training is in this process.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from pplr_lightning.callbacks import Figures
from pplr_lightning.cli import main as run

HOOKS = ("on_train_batch_start", "on_train_epoch_end", "on_train_end")


class Watch:
    """CPU seconds of all threads that a class's methods take, in all calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def over(self, method: Any) -> Any:
        """Wraps a method."""

        def timed(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return method(*args, **options)
            finally:
                self.seconds += time.process_time() - start

        return timed


def main(args: list[str]) -> None:
    """Runs `fit` and prints what of its time was the figures'."""
    watch, hooks = Watch(), {name: getattr(Figures, name) for name in HOOKS}
    for name, hook in hooks.items():
        setattr(Figures, name, watch.over(hook))
    start = time.process_time()
    try:
        run(["fit", *args])
    finally:
        for name, hook in hooks.items():
            setattr(Figures, name, hook)
    total = time.process_time() - start
    print(f"figures: {watch.seconds:.1f} of {total:.1f} CPU s, {100 * watch.seconds / total:.1f} %")


if __name__ == "__main__":
    main(sys.argv[1:])
