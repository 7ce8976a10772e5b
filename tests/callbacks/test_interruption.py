from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from pplr_lightning.callbacks import Interruption
from pplr_lightning.callbacks.interruption import Interrupted

from ..conftest import ROOT


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def test_sigterm_to_the_whole_process_group_spares_the_loader_workers(run_args, tmp_path):
    """As SLURM and shells send it; the step that runs needs its workers to end."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "pplr_lightning", "fit", *run_args,
            "--data.num_workers=2", "--data.iterations=10000",
        ],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    log = tmp_path / "demo/version_0/metrics.csv"
    deadline = time.monotonic() + 600
    while not (log.exists() and log.read_text().count("\n") > 2):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    error = process.communicate(timeout=600)[1]
    assert process.returncode == 143, error
    checkpoint = tmp_path / "demo/version_0/checkpoints/interrupted.ckpt"
    assert f"stopped by SIGTERM; saved {checkpoint}." in error
    assert error.strip().endswith(f"--ckpt_path={checkpoint}")


class TestSlurm:
    """An imitated cluster: its environment, and a `scontrol` that notes what it is asked."""

    @pytest.fixture
    def asked(self, tmp_path, monkeypatch):
        asked = tmp_path / "asked"
        scontrol = tmp_path / "bin/scontrol"
        scontrol.parent.mkdir()
        scontrol.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
        scontrol.chmod(0o755)
        monkeypatch.setenv("PATH", str(scontrol.parent), prepend=os.pathsep)
        for name, value in {
            "NTASKS": 1, "JOB_NAME": "train", "JOB_ID": 1234, "PROCID": 0, "LOCALID": 0, "NODEID": 0
        }.items():  # fmt: skip
            monkeypatch.setenv(f"SLURM_{name}", str(value))
        return asked

    def test_requeue_saves_after_the_step_and_the_next_job_goes_on(
        self, run, run_args, checkpoint_args, tmp_path, asked
    ):
        options = [*run_args, *checkpoint_args, f"--trainer.default_root_dir={tmp_path / 'job'}"]
        fault = ["--trainer.callbacks+=tests.faults.Terminates", "--trainer.callbacks.step=1"]
        cli = run("fit", *options, *fault, f"--trainer.callbacks.signum={int(signal.SIGUSR1)}")
        assert asked.read_text() == "requeue 1234\n"
        whole = tmp_path / f"demo/version_{cli.trainer.logger.version}/checkpoints/last.ckpt"
        saved = tmp_path / "job/hpc_ckpt_1.ckpt"
        assert torch.load(saved, weights_only=True)["global_step"] == 2

        cli = run("fit", *options)
        resumed = tmp_path / f"demo/version_{cli.trainer.logger.version}/checkpoints/last.ckpt"
        assert resumed != whole
        assert cli.trainer.ckpt_path == str(saved)
        left, right = weights(resumed), weights(whole)
        assert all(
            torch.equal(left[name], right[name])
            for name in left
            if isinstance(left[name], torch.Tensor)
        )


def test_another_run_forgets_the_signal(monkeypatch):
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    trainer = SimpleNamespace(strategy=strategy, ckpt_path=None, global_rank=0)
    monkeypatch.setattr(signal, "signal", mock := MagicMock())
    interruption = Interruption()
    interruption.on_sanity_check_start(trainer, None)
    handler = mock.call_args.args[1]
    handler(signal.SIGTERM, None)
    with pytest.raises(Interrupted):
        interruption.on_train_start(trainer, None)
    interruption.setup(trainer, None, "fit")
    interruption.on_train_start(trainer, None)
