from __future__ import annotations

import re

import figures as benchmark

from pplr_lightning.callbacks import Figures


def test_prints_a_share(run_args, capsys):
    hook = Figures.on_train_end
    benchmark.main([*run_args, "--trainer.max_epochs=1", '--figures.names=["label_quality"]'])
    line = capsys.readouterr().out.strip().splitlines()[-1]
    seconds, total, share = map(float, re.findall(r"[\d.]+", line))
    assert 0 < seconds < total
    assert abs(share - 100 * seconds / total) < 5
    assert Figures.on_train_end is hook
