from __future__ import annotations

import pytest
import torch

from pplr_lightning.data import TrainBatch
from pplr_lightning.methods import ISEModule, ReIDModule
from pplr_lightning.networks import PartOutput

from ..test_resume import same
from ..tiny import save
from .small_runs import SaveAfterStep, alone, fit, network, options, read, train_as_one


def build(**options):
    torch.manual_seed(0)
    return ISEModule(network(), **options)


@pytest.mark.parametrize(
    ("name", "rule"),
    [("ise_market", "hardest"), ("ise_topk3", "hardest"), ("ise_msmt", "every")],
)
def test_a_step_is_that_of_the_authors(name, rule, monkeypatch):
    """Loss, gradient and memory, from features to rows."""
    arrays = read(name)
    module = alone(
        build(
            temperature=float(arrays["temp"]),
            momentum=float(arrays["momentum"]),
            update=rule,
            degree=float(arrays["base_lambda"]),
            neighbors=int(arrays["topk"]),
            preserving_weight=float(arrays["lp_weight"]),
            preserving_temperature=float(arrays["temp_lp"]),
        )
    )
    module.trainer.current_epoch = int(arrays["epoch"])
    module.trainer.max_epochs = int(arrays["epochs"])
    module.trainer.num_training_batches = int(arrays["iterations"])
    module.memory.reset(arrays["memory"])
    rows, targets = arrays["raw_features"].requires_grad_(), arrays["targets"]
    monkeypatch.setattr(
        module.network, "forward", lambda images: PartOutput(images, images[..., None][..., :0])
    )
    batch = TrainBatch(rows, targets, targets, targets, {})
    loss = module.training_step(batch, int(arrays["iteration"]))
    loss.backward()
    module.end_step(batch)
    exact = {"rtol": 1e-12, "atol": 1e-12}
    expected = arrays["loss_extension"] + arrays["lp_weight"] * arrays["loss_preserving"]
    torch.testing.assert_close(loss.detach(), expected, **exact)
    torch.testing.assert_close(rows.grad, arrays["grad_raw"], **exact)
    torch.testing.assert_close(module.memory.rows, arrays["memory_after"], **exact)


def test_is_built_again_from_its_checkpoint(tmp_path):
    module = build(preserving_weight=0.01, update="every")
    module.memory.reset(torch.eye(3))
    found = ReIDModule.load_from_checkpoint(save(module, tmp_path / "ise.ckpt"))
    assert isinstance(found, ISEModule)
    assert (found.preserving_weight, found.memory.rule) == (0.01, "every")
    assert torch.equal(found.memory.rows, torch.eye(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0: must be finite and above 0"),
        ({"degree": -1.0}, "degree=-1.0: must be finite and not negative"),
        ({"neighbors": 0}, "model.neighbors must be at least 1"),
        ({"preserving_weight": -0.1}, "preserving_weight=-0.1"),
        ({"preserving_temperature": 0.0}, "preserving_temperature=0.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_run_of_unknown_length_is_refused():
    module = alone(build())
    module.trainer.max_epochs = -1
    with pytest.raises(ValueError, match=r"trainer.max_epochs=-1: .* give a number of epochs"):
        module.setup("fit")


def test_goes_on_in_mid_epoch_with_the_very_memory(drawn, tmp_path):
    whole = fit(build(), drawn, SaveAfterStep(tmp_path / "middle.ckpt"))
    again = fit(build(), drawn, ckpt_path=tmp_path / "middle.ckpt")
    assert same(whole.state_dict(), again.state_dict())


def test_two_processes_train_as_one(drawn, run, run_several, tmp_path):
    config, *others = options(drawn, "")
    words = [config.replace("cluster_contrast", "ise"), "--model.preserving_weight=1", *others]
    losses = ("train/loss", "train/loss_preserving")
    train_as_one(run, run_several, tmp_path, words, "ise", *losses)
