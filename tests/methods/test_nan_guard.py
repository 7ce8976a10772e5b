from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch import Callback

from pplr_lightning import PPLRModule
from pplr_lightning.methods import ReIDModule, nan_guard
from pplr_lightning.methods.nan_guard import NaNGuard

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])]
)
def test_gives_each_step_once(device):
    guard = NaNGuard()
    assert guard.take() is None
    for number in range(3):
        losses = {"a": torch.tensor(1.5 + number, device=device)}
        losses["b"] = torch.tensor(math.nan if number == 1 else 0.0, device=device)
        guard.note(torch.tensor(number != 1, device=device), losses, epoch=7, number=number)
        step = guard.take()
        assert (step.epoch, step.number, step.losses["a"]) == (7, number, 1.5 + number)
        assert step.finite is (number != 1)
        assert step.broken == (["b is nan"] if number == 1 else [])
        assert guard.take() is None


class Weights(Callback):
    """Keeps the weights before each step."""

    def __init__(self):
        self.before = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before.append([p.detach().clone() for p in pl_module.parameters()])


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The fused optimiser, which skips a step itself, on the CPU, which has one, too."""
    plain = ReIDModule.configure_optimizers

    def fused(self):
        configured = plain(self)
        for group in configured["optimizer"].param_groups:
            group["fused"] = True
        configured["optimizer"]._step_supports_amp_scaling = True
        return configured

    monkeypatch.setattr(ReIDModule, "configure_optimizers", fused)
    monkeypatch.setattr(nan_guard, "skips_steps", lambda optimizer, trainer: True)


@pytest.fixture
def poisoned(run, run_args, monkeypatch):
    """Trains with a NaN in an image of one step, to its error; returns the weights before each."""

    def train(step, *options):
        weights = Weights()
        monkeypatch.setattr(PPLRModule, "configure_callbacks", lambda self: [weights])
        fault = ["--trainer.callbacks+=tests.faults.Poisons", f"--trainer.callbacks.step={step}"]
        with pytest.raises(SystemExit):
            run("fit", *run_args, *fault, *options)
        return weights.before

    return train


@pytest.mark.usefixtures("as_on_a_gpu")
class TestAStepLater:
    def test_the_weights_never_take_the_step(self, poisoned, capsys):
        before = poisoned(1)
        assert len(before) == 3  # the step after the broken one began, and took no weight with it
        assert any(not torch.equal(a, b) for a, b in zip(before[0], before[1], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(before[1], before[2], strict=True))
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: epoch 0, step 1: train/loss is nan, ")

    @pytest.mark.parametrize(("step", "validates"), [(2, True), (2, False), (5, False)])
    def test_an_epochs_last_step_is_checked_with_it(self, poisoned, capsys, step, validates):
        options = [] if validates else ["--trainer.limit_val_batches=0"]
        assert len(poisoned(step, *options)) == step + 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith(f"error: epoch {step // 3}, step {step}: train/loss is nan, ")

    def test_no_checkpoint_is_written_of_it(self, poisoned, tmp_path):
        saving = [
            "--trainer.callbacks+=ModelCheckpoint",
            f"--trainer.callbacks.dirpath={tmp_path / 'saved'}",
            "--trainer.callbacks.every_n_train_steps=1",
            "--trainer.callbacks.save_top_k=-1",
        ]
        poisoned(1, *saving)
        assert [path.name for path in (tmp_path / "saved").iterdir()] == ["epoch=0-step=1.ckpt"]

    def test_trains_as_with_a_check_in_every_step(self, run, run_args, monkeypatch):
        later = run("fit", *run_args).trainer.callback_metrics
        monkeypatch.setattr(nan_guard, "skips_steps", lambda optimizer, trainer: False)
        at_once = run("fit", *run_args).trainer.callback_metrics
        assert later["train/loss"] == at_once["train/loss"]


def test_the_bar_shows_the_losses(run, run_args):
    trainer = run("fit", *run_args, "--trainer.enable_progress_bar=true").trainer
    shown = trainer.progress_bar_metrics
    assert shown["train/loss"] == pytest.approx(trainer.callback_metrics["train/loss"].item())
    assert isinstance(shown["train/loss_triplet"], float)
