"""Compiling before work begins, and saying so."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_info

from pplr_lightning.functional.warm_up import compile_loops


def compile_before_work() -> None:
    """Compiles the loops of labels and metrics; says so where this machine had not yet."""
    seconds = compile_loops()
    if seconds > 2:
        rank_zero_info(f"compiled loops in {seconds:.0f} s; later runs on this machine load them")
