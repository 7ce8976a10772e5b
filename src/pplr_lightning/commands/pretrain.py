"""`pretrain`: a warm start without labels (SimCLR)."""

from __future__ import annotations

from pplr_lightning.cli import PPLRCLI, run_cli
from pplr_lightning.simclr import SimCLRModule


def run(args: list[str]) -> PPLRCLI:
    """Fits `SimCLRModule` with the options of `fit`."""
    return run_cli(["fit", *args], cli=PPLRCLI, module=SimCLRModule)
