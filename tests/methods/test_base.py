from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace

import pytest
import timm
import torch
from lightning.pytorch.cli import ReduceLROnPlateau

from pplr_lightning import PPLRDataModule, PPLRModule
from pplr_lightning.data import EvalBatch
from pplr_lightning.networks import PartNetwork
from pplr_lightning.networks.backbone import create_backbone

from ..conftest import warns_of_nothing
from ..other_projects import Contrast, wrapped
from ..tiny import save


def network(backbone="resnet10t", *, weights=None, **options):
    return PartNetwork(backbone, weights=weights, **options)


@pytest.fixture
def module():
    torch.manual_seed(0)
    return PPLRModule(network(num_parts=2), max_clusters=5)


def test_an_evaluation_step_gives_every_branch_and_prediction_the_one_asked_for(module):
    module.eval()
    ids = torch.arange(3)
    batch = EvalBatch(torch.randn(3, 3, 64, 32), ids, ids, ids, ids > 0)
    output = module.network(batch.images)
    expected = {
        name: torch.nn.functional.normalize(getattr(output, name), dim=1)
        for name in ("features", "part_features")
    }
    for step in (module.validation_step, module.test_step):
        torch.testing.assert_close(step(batch, 0), expected)
    indices, features = module.predict_step(batch, 0)
    assert torch.equal(indices, batch.indices)
    torch.testing.assert_close(features, expected["features"])
    module.predict_kind = "parts"
    assert module.predict_step(batch, 0)[1].shape == (3, 2 * 512)


def test_optimiser_is_the_papers(module):
    configured = PPLRModule(network()).configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.param_groups[0]["lr"] == 3.5e-4
    assert optimizer.param_groups[0]["weight_decay"] == 5e-4
    rates = []
    for _ in range(41):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[19] == 3.5e-4
    assert rates[20] == pytest.approx(3.5e-5)
    assert rates[40] == pytest.approx(3.5e-6)


class TestOptimizer:
    def test_another_one(self, module):
        module.optimizer = partial(torch.optim.SGD, lr=0.1)
        module.lr_scheduler = None
        optimizer = module.configure_optimizers()
        assert isinstance(optimizer, torch.optim.SGD)
        given = [p for group in optimizer.param_groups for p in group["params"]]
        assert all(parameter.requires_grad for parameter in given)
        assert len(given) == sum(parameter.requires_grad for parameter in module.parameters())

    def test_a_schedule_that_looks_at_a_metric(self, module):
        # Of Lightning, as the command line makes it: it has a monitor.
        module.lr_scheduler = partial(ReduceLROnPlateau, monitor="val/mAP")
        scheduler = module.configure_optimizers()["lr_scheduler"]
        assert scheduler["monitor"] == "val/mAP"

    @pytest.mark.parametrize(
        "options", [{"lr": -1.0}, {"lr": math.nan}, {"lr": 0.1, "weight_decay": -1.0}]
    )
    def test_options_out_of_range(self, module, options):
        module.optimizer = partial(torch.optim.Adam, **options)
        with pytest.raises(ValueError, match=r"^optimizer: Invalid (learning rate|weight_decay)"):
            module.configure_optimizers()


class TestStart:
    """Where the weights come from, over a module's life."""

    @pytest.fixture
    def loads(self, monkeypatch):
        """Puts other random weights in the place of those that timm publishes."""
        calls = []

        def create(name, size, *, pretrained=False):
            calls.extend(["loaded"] * pretrained)
            return create_backbone(name, size)

        monkeypatch.setattr("pplr_lightning.networks.part_network.create_backbone", create)
        return calls

    @staticmethod
    def set_up(module, stage="fit", ckpt_path=None, datamodule=None):
        module.trainer = SimpleNamespace(
            ckpt_path=ckpt_path, accumulate_grad_batches=1, check_val_every_n_epoch=1,
            gradient_clip_val=None, precision="32-true", log_every_n_steps=1, callbacks=[],
            world_size=1, datamodule=datamodule,
        )  # fmt: skip
        module.setup(stage)

    def test_pretrained_weights_are_loaded_once(self, loads):
        module = PPLRModule(network(weights="pretrained", norm_batch_size=None, last_stride=2))
        assert loads == []  # not yet: a checkpoint may be about to be restored
        self.set_up(module)
        self.set_up(module, "validate")  # of what was trained
        assert loads == ["loaded"]

    def test_not_before_a_checkpoint_is_restored(self, loads):
        self.set_up(PPLRModule(network(weights="pretrained")), ckpt_path="last.ckpt")
        assert loads == []

    @pytest.mark.parametrize("of", ["this library", "SpCL"])
    def test_a_checkpoint(self, tmp_path, of):
        path = tmp_path / "weights.pth"
        other = PPLRModule(network("resnet18.tv_in1k"), max_clusters=5)
        torch.save(other.state_dict() if of == "this library" else wrapped(Contrast()), path)
        module = PPLRModule(network("resnet18.tv_in1k", weights=str(path)), max_clusters=7)
        self.set_up(module)
        weights = torch.load(path, weights_only=True)
        first = weights.get("network.backbone.conv1.weight", weights.get("module.base.0.weight"))
        assert torch.equal(module.network.backbone.conv1.weight, first)

    def test_not_over_a_loaded_checkpoint(self, loads, tmp_path):
        path = save(PPLRModule(network(weights="pretrained")), tmp_path / "module.ckpt")
        assert loads == ["loaded"]  # or it would have saved random ones
        loads.clear()
        self.set_up(PPLRModule.load_from_checkpoint(path), "test")
        assert loads == []

    def test_the_backbones_weights_of_anyone(self, tmp_path, caplog):
        weights = timm.create_model("resnet10t").state_dict()
        torch.save(weights, tmp_path / "persons.pth")
        module = PPLRModule(network(weights=str(tmp_path / "persons.pth")))
        with caplog.at_level("INFO"):
            self.set_up(module)
        for name, value in module.network.backbone.state_dict().items():
            assert torch.equal(value, weights[name]), name
        assert f"{tmp_path / 'persons.pth'}; left out 2: fc.weight, fc.bias" in caplog.text

    def test_weights_of_another_normalisation(self, loads):
        """timm's test_vit was trained on images of mean 0.5."""
        options = {"image_size": (64, 32), "last_stride": 2, "weights": "pretrained"}
        message = (
            r"of test_vit .*data.mean=\(0.5, 0.5, 0.5\) .*here these are \(0.485, 0.456, 0.406\)"
        )
        with pytest.warns(UserWarning, match=message):
            self.set_up(
                PPLRModule(network("test_vit", **options)), "validate", datamodule=PPLRDataModule()
            )

    def test_a_file_that_tells_its_normalisation(self, tmp_path):
        """Images of TransReID are of mean 0.5; so is what the module then prepares by itself."""
        weights = timm.create_model("test_vit", img_size=(64, 32)).state_dict()
        names = {f"base.{name}": value for name, value in weights.items()}
        torch.save({**names, "bottleneck.weight": torch.ones(64)}, tmp_path / "transreid.pth")
        options = {"image_size": (64, 32), "last_stride": 2, "norm_batch_size": 2}
        vit = network("test_vit", weights=str(tmp_path / "transreid.pth"), **options)
        vit.backbone.pretrained_cfg = {**vit.backbone.pretrained_cfg, "mean": (0.1, 0.2, 0.3)}
        module = PPLRModule(vit)
        message = r"the TransReID weights of test_vit are for images of data.mean=\(0.5, 0.5, 0.5\)"
        with pytest.warns(UserWarning, match=message):
            self.set_up(module, "validate", datamodule=PPLRDataModule())
        module.preprocessing = None
        assert module.prepared().mean == (0.5, 0.5, 0.5)

    @warns_of_nothing
    def test_a_file_that_does_not_tell_its_normalisation(self, tmp_path):
        """EfficientNet-Lite0 wants a mean of 0.5, which timm's names alone do not say."""
        backbone = create_backbone("tf_efficientnet_lite0", (64, 32))
        torch.save(backbone.state_dict(), tmp_path / "lite0.pth")
        options = {"weights": str(tmp_path / "lite0.pth"), "last_stride": 2}
        module = PPLRModule(network("tf_efficientnet_lite0", **options), max_clusters=5)
        with pytest.warns(UserWarning, match=r"published weights of tf_eff.* data.mean=\(0.5, 0.5"):
            self.set_up(module, datamodule=PPLRDataModule())

    def test_weights_of_the_normalisation_that_is_used(self, loads):
        vit = network("test_vit", image_size=(64, 32), last_stride=2, weights="pretrained")
        half = PPLRDataModule(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        self.set_up(PPLRModule(vit), "validate", datamodule=half)
        resnet = network("resnet18", weights="pretrained")
        self.set_up(PPLRModule(resnet), "validate", datamodule=PPLRDataModule())
        assert loads == ["loaded"] * 2
