"""A step on a GPU: the host never waits for the device, and fast paths train as the plain one."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from pplr_lightning import PPLRModule
from pplr_lightning.commands.training import run_cli

from ..conftest import run_options
from .test_ice import options as ice_options
from .test_iics import options as iics_options
from .test_mmt import options as mmt_options
from .test_nan_guard import Weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GPU = ["--trainer.accelerator=gpu", "--trainer.devices=1", "--trainer.max_epochs=1"]


class NoWaiting(Callback):
    """Turns everything that makes the host wait within the steps into an error."""

    steps = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1:  # the first sets up what is allocated once
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        NoWaiting.steps += 1
        if batch_idx == trainer.num_training_batches - 2:  # the last ends the epoch's clock
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--trainer.precision=bf16-mixed", "--model.network.channels_last=true"],
        [
            "--trainer.precision=bf16-mixed",
            "--model.network.channels_last=true",
            "--model.network.compile=true",
        ],
        ["--model.camera_weight=0.5", "--data.use_cameras=true"],
    ],
)
@pytest.mark.parametrize("bar", [False, True])
def test_the_host_never_waits(drawn, tmp_path, options, bar):
    shown = ["--trainer.callbacks+=RichProgressBar", "--trainer.enable_progress_bar=true"]
    watch([*run_options(drawn, tmp_path), *GPU, *(shown if bar else []), *options])


@pytest.mark.parametrize("options", [ice_options, mmt_options])
def test_nor_in_methods_with_teachers(drawn, tmp_path, options):
    watch([*options(drawn, tmp_path), *GPU, "--trainer.precision=32-true"])


@pytest.mark.parametrize("epochs", [1, 2])
def test_nor_within_cameras_nor_across(drawn, tmp_path, epochs):
    words = [*GPU, "--trainer.precision=32-true", f"--trainer.max_epochs={epochs}"]
    watch([*iics_options(drawn, tmp_path), *words], epochs=epochs)


def watch(words, *, epochs=1):
    """Trains epochs of six steps, with an error where the host waits within one."""
    NoWaiting.steps = 0
    try:
        run_cli(
            [
                "fit",
                *words,
                "--data.iterations=6",
                "--trainer.log_every_n_steps=50",
                f"--trainer.callbacks+={NoWaiting.__module__}.NoWaiting",
            ]
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert NoWaiting.steps == 6 * epochs


def losses(drawn, folder, *options) -> torch.Tensor:
    """Of 20 steps on a GPU, every one logged."""
    steps = []

    class Losses(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module, *args):
            steps.append(pl_module.losses["train/loss"].clone())

    plain = PPLRModule.configure_callbacks
    PPLRModule.configure_callbacks = lambda self: [Losses()]
    try:
        arguments = [*run_options(drawn, folder), *GPU, "--data.iterations=20", *options]
        run_cli(["fit", *arguments])
    finally:
        PPLRModule.configure_callbacks = plain
    return torch.stack(steps).cpu()


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        (["--model.network.channels_last=true"], 0.02),
        (["--model.network.compile=true"], 0.02),
        (["--trainer.precision=bf16-mixed"], 0.1),
        (
            [
                "--trainer.precision=bf16-mixed",
                "--model.network.channels_last=true",
                "--model.network.compile=true",
            ],
            0.1,
        ),
    ],
)
def test_losses_over_20_steps(drawn, tmp_path, options, tolerance):
    plain = losses(drawn, tmp_path / "plain")
    fast = losses(drawn, tmp_path / "fast", *options)
    assert len(plain) == len(fast) == 20
    assert torch.allclose(fast, plain, rtol=tolerance)


def test_the_fused_optimiser_skips_a_broken_step(drawn, tmp_path, monkeypatch):
    weights = Weights()
    monkeypatch.setattr(PPLRModule, "configure_callbacks", lambda self: [weights])
    with pytest.raises(FloatingPointError, match="epoch 0, step 1: train/loss is nan"):
        run_cli(
            [
                "fit",
                *run_options(drawn, tmp_path),
                *GPU,
                "--trainer.callbacks+=tests.faults.Poisons",
                "--trainer.callbacks.step=1",
            ]
        )
    before = weights.before  # each step
    assert len(before) == 3  # the step after the broken one began, and took no weight with it
    assert any(not torch.equal(a, b) for a, b in zip(before[0], before[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before[1], before[2], strict=True))
    assert all(weight.isfinite().all() for weight in before[2])
