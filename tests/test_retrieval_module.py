from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import timm
import torch
from lightning.pytorch import Trainer

from pplr_lightning import PPLRDataModule, PPLRModule, SimCLRModule
from pplr_lightning.data import EvalBatch
from pplr_lightning.data.images import read_image
from pplr_lightning.data.transforms import EvalTransform
from pplr_lightning.models import PartModel

from .other_projects import Contrast, wrapped
from .tiny import module as tiny
from .tiny import save


@pytest.fixture
def module():
    torch.manual_seed(0)
    return PPLRModule("resnet10t", pretrained=False, max_clusters=5, num_parts=2)


def test_forward_gives_the_normalised_global_feature(module):
    images = torch.randn(3, 3, 64, 32)
    module.eval()
    features = module(images)
    assert torch.allclose(features.norm(dim=1), torch.ones(3))
    expected = torch.nn.functional.normalize(module.model(images).features)
    assert torch.equal(features, expected)


def test_an_evaluation_step_gives_every_branch_and_prediction_the_one_asked_for(module):
    module.eval()
    ids = torch.arange(3)
    batch = EvalBatch(torch.randn(3, 3, 64, 32), ids, ids, ids, ids > 0)
    output = module.model(batch.images)
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
    configured = PPLRModule("resnet10t", pretrained=False).configure_optimizers()
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


class TestStart:
    """Where the weights come from, over a module's life."""

    @pytest.fixture
    def loads(self, monkeypatch):
        calls = []
        monkeypatch.setattr(PartModel, "load_pretrained_backbone", lambda _: calls.append("loaded"))
        return calls

    @staticmethod
    def set_up(module, stage="fit", ckpt_path=None, datamodule=None):
        module.trainer = SimpleNamespace(
            ckpt_path=ckpt_path, accumulate_grad_batches=1, world_size=1, datamodule=datamodule
        )
        module.setup(stage)

    def test_pretrained_weights_are_loaded_once(self, loads):
        module = PPLRModule("resnet10t", pretrained=True)
        assert loads == []  # not yet: a checkpoint may be about to be restored
        self.set_up(module)
        self.set_up(module, "validate")  # of what was trained
        assert loads == ["loaded"]

    def test_not_before_a_checkpoint_is_restored(self, loads):
        self.set_up(PPLRModule("resnet10t", pretrained=True), ckpt_path="last.ckpt")
        assert loads == []

    @pytest.mark.parametrize("of", ["this library", "SpCL"])
    def test_warm_start(self, loads, tmp_path, of):
        path = tmp_path / "weights.pth"
        other = PPLRModule("resnet18.tv_in1k", max_clusters=5)
        torch.save(other.state_dict() if of == "this library" else wrapped(Contrast()), path)
        module = PPLRModule("resnet18.tv_in1k", max_clusters=7, warm_start=str(path))
        self.set_up(module)
        weights = torch.load(path, weights_only=True)
        first = weights.get("model.backbone.conv1.weight", weights.get("module.base.0.weight"))
        assert torch.equal(module.model.backbone.conv1.weight, first)
        assert loads == []

    def test_not_over_a_loaded_checkpoint(self, loads, tmp_path):
        module = PPLRModule("resnet10t", pretrained=True)
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.strategy.connect(module)
        trainer.save_checkpoint(tmp_path / "module.ckpt")
        loaded = PPLRModule.load_from_checkpoint(tmp_path / "module.ckpt", weights_only=True)
        self.set_up(loaded, "test")
        assert loads == []

    @pytest.mark.parametrize("kind", [PPLRModule, SimCLRModule])
    def test_backbone_weights_come_before_timms(self, loads, tmp_path, caplog, kind):
        weights = timm.create_model("resnet10t").state_dict()
        torch.save(weights, tmp_path / "persons.pth")
        options = {"pretrained": True, "backbone_weights": str(tmp_path / "persons.pth")}
        module = kind("resnet10t", **options)
        with caplog.at_level("INFO"):
            self.set_up(module)
        assert loads == []
        for name, value in module.model.backbone.state_dict().items():
            assert torch.equal(value, weights[name]), name
        assert f"{tmp_path / 'persons.pth'}; left out 2: fc.weight, fc.bias" in caplog.text

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"lr": 0.0}, "lr=0.0: must be finite and above 0"),
            ({"lr": math.inf}, "lr=inf"),
            ({"lr_gamma": -0.1}, "lr_gamma=-0.1: must be finite and above 0"),
            ({"lr_gamma": math.nan}, "lr_gamma=nan"),
            ({"weight_decay": -1e-4}, "weight_decay=-0.0001: must be finite and not negative"),
            ({"weight_decay": math.inf}, "weight_decay=inf"),
            ({"lr_step": 0}, "lr_step=0: must be at least 1"),
        ],
    )
    def test_options_out_of_range(self, options, message):
        with pytest.raises(ValueError, match=f"^{message}"):
            PPLRModule("resnet10t", **options)

    def test_two_files(self):
        with pytest.raises(ValueError, match=r"=a.pth and warm_start=b.ckpt: give one of them"):
            PPLRModule("resnet10t", backbone_weights="a.pth", warm_start="b.ckpt")

    def test_weights_of_another_normalisation(self, loads):
        """timm's test_vit was trained on images of mean 0.5."""
        module = PPLRModule("test_vit", image_size=(64, 32), last_stride=2)
        message = (
            r"of test_vit .*data.mean=\(0.5, 0.5, 0.5\) .*here these are \(0.485, 0.456, 0.406\)"
        )
        with pytest.warns(UserWarning, match=message):
            self.set_up(module, "validate", datamodule=PPLRDataModule())

    @pytest.mark.filterwarnings("error")
    def test_weights_of_the_normalisation_that_is_used(self, loads):
        options = {"image_size": (64, 32), "last_stride": 2}
        half = PPLRDataModule(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        self.set_up(PPLRModule("test_vit", **options), "validate", datamodule=half)
        self.set_up(PPLRModule("resnet10t"), "validate", datamodule=PPLRDataModule())
        assert loads == ["loaded"] * 2


class TestEmbed:
    """Vectors of images as they are, with what the checkpoint says."""

    @pytest.fixture
    def paths(self, drawn):
        return sorted((drawn / "query").iterdir())[:4]

    def test_of_a_loaded_checkpoint(self, tiny_checkpoint, paths):
        made = tiny()
        loaded = PPLRModule.load_from_checkpoint(tiny_checkpoint, weights_only=True).train()
        images = torch.stack([EvalTransform((64, 32))(read_image(str(path))) for path in paths])
        with torch.no_grad():
            assert torch.equal(loaded.embed(paths), made(images))
        assert loaded.training
        assert loaded.recipe() == made.recipe()

    def test_other_features(self, tiny_checkpoint, paths):
        loaded = PPLRModule.load_from_checkpoint(tiny_checkpoint, weights_only=True)
        assert loaded.embed(paths, kind="both", batch_size=3).shape == (4, 3 * 96)
        assert loaded.recipe(kind="both").features == "both"

    def test_another_image_size(self, tiny_checkpoint, paths):
        loaded = PPLRModule.load_from_checkpoint(tiny_checkpoint, weights_only=True)
        assert not torch.equal(loaded.embed(paths, image_size=(96, 32)), loaded.embed(paths))
        assert loaded.recipe(image_size=(96, 32)).preprocessing.image_size == (96, 32)
        assert loaded.recipe().preprocessing.image_size == (64, 32)

    def test_a_checkpoint_that_does_not_say(self, module, paths):
        with pytest.raises(ValueError, match=r"give their image_size, \(height, width\)"):
            module.embed(paths)
        assert module.embed(paths, image_size=(64, 32)).shape == (4, 512)

    def test_the_data_module_counts_where_there_is_one(self, tiny_checkpoint, tmp_path):
        loaded = PPLRModule.load_from_checkpoint(tiny_checkpoint, weights_only=True)
        loaded.trainer = SimpleNamespace(
            ckpt_path=None, datamodule=PPLRDataModule(image_size=(48, 16)), world_size=1
        )
        loaded.setup("test")
        assert loaded.preprocessing.image_size == (48, 16)
        loaded._trainer = None
        again = PPLRModule.load_from_checkpoint(
            save(loaded, tmp_path / "again.ckpt"), weights_only=True
        )
        assert again.preprocessing.image_size == (48, 16)
        loaded.on_load_checkpoint(
            torch.load(tiny_checkpoint, weights_only=True)
        )  # to go on with new data
        assert loaded.preprocessing.image_size == (48, 16)
