"""The command line with one thing broken that makes results depend on the number of processes.

`python -m tests.broken triplet fit ...`: for negative controls of what test_ddp.py compares.
"""

from __future__ import annotations

import sys

from pplr_lightning.cli import main
from pplr_lightning.methods import base
from pplr_lightning.networks import GroupBatchNorm


def break_norm():
    """Takes the statistics of a process's images, as plain batch normalisation does."""
    GroupBatchNorm._num_groups = lambda self, batch: 1
    base.share_groups = lambda model, ranks: None


def break_triplet():
    """Compares the images of each process alone."""
    base.ReIDModule.gather = lambda self, rows: rows


def break_statistics():
    """Leaves the running statistics of each process as they are; DDP then takes rank 0's."""
    base.ReIDModule.on_after_backward = lambda self: None


if __name__ == "__main__":
    globals()[f"break_{sys.argv[1]}"]()
    main(sys.argv[2:])  # other processes are started with the same words
