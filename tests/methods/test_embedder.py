from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import timm
import torch

from pplr_lightning import PPLRDataModule, PPLRModule, SimCLRModule
from pplr_lightning.data.images import read_image
from pplr_lightning.data.transforms import EvalTransform, Preprocessing
from pplr_lightning.evaluation.fingerprint import checksum
from pplr_lightning.methods import ReIDModule
from pplr_lightning.networks import PartNetwork

from ..tiny import module as tiny
from ..tiny import save


def network(backbone="resnet10t", *, weights=None, **options):
    return PartNetwork(backbone, weights=weights, **options)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch executed",)


def described(**options):
    init_args = {"backbone": "test_resnet", "num_parts": 2, **options}
    return {"class_path": "PartNetwork", "init_args": init_args}


def change(path, folder, **content):
    changed = folder / "changed.ckpt"
    torch.save({**torch.load(path, weights_only=True), **content}, changed)
    return changed


@pytest.fixture
def module():
    torch.manual_seed(0)
    return PPLRModule(network(num_parts=2), max_clusters=5)


def test_forward_gives_the_normalised_global_feature(module):
    images = torch.randn(3, 3, 64, 32)
    module.eval()
    features = module(images)
    assert torch.allclose(features.norm(dim=1), torch.ones(3))
    expected = torch.nn.functional.normalize(module.network(images).features)
    assert torch.equal(features, expected)


class TestLoad:
    """A module from a checkpoint, without a config."""

    def test_builds_what_the_checkpoint_says(self, tiny_checkpoint):
        found, expected = ReIDModule.load_from_checkpoint(tiny_checkpoint), tiny()
        assert isinstance(found, PPLRModule)
        assert found.network.num_parts == 2
        assert found.preprocessing == expected.preprocessing
        assert checksum(found.network) == checksum(expected.network)

    def test_of_a_run_of_the_command_line(self, trained):
        found = ReIDModule.load_from_checkpoint(trained / "checkpoints/last.ckpt")
        assert found.preprocessing.image_size == (64, 32)
        assert found.max_classes == 64

    def test_of_simclr(self, tmp_path):
        pytest.importorskip("pytorch_metric_learning")
        made = SimCLRModule(network("test_resnet"), projection_size=8)
        found = ReIDModule.load_from_checkpoint(save(made, tmp_path / "simclr.ckpt"))
        assert isinstance(found, SimCLRModule)
        assert torch.equal(found.projector[2].weight, made.projector[2].weight)
        assert found.preprocessing is None
        with pytest.raises(ValueError, match=r"simclr.ckpt: the model is a SimCLRModule, which"):
            PPLRModule.load_from_checkpoint(tmp_path / "simclr.ckpt")

    def test_of_a_method_of_ones_own(self, tmp_path):
        class Own(PPLRModule):
            def __init__(self, network, *, weight=1.0):
                super().__init__(network, max_clusters=3)
                self.weight = weight
                self.save_hyperparameters("weight")

        path = save(Own(network("test_resnet"), weight=0.5), tmp_path / "own.ckpt")
        assert ReIDModule.load_from_checkpoint(path).weight == 0.5
        assert Own.load_from_checkpoint(path, weight=0.25).weight == 0.25

    def test_without_the_file_that_it_started_from(self, tmp_path):
        torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "start.pth")
        made = PPLRModule(network("test_resnet", weights=str(tmp_path / "start.pth")))
        path = save(made, tmp_path / "made.ckpt")
        (tmp_path / "start.pth").unlink()
        assert checksum(ReIDModule.load_from_checkpoint(path).network) == checksum(made.network)

    def test_what_fits_of_another_models_weights(self, tiny_checkpoint):
        with pytest.raises(ValueError, match=r"does not fit the model: classifier.weight is"):
            PPLRModule.load_from_checkpoint(tiny_checkpoint, max_clusters=3)
        found = PPLRModule.load_from_checkpoint(tiny_checkpoint, max_clusters=3, strict=False)
        assert checksum(found.network) == checksum(tiny().network)

    def test_code_is_never_executed(self, tiny_checkpoint, tmp_path):
        options = torch.load(tiny_checkpoint, weights_only=True)["hyper_parameters"]
        path = change(
            tiny_checkpoint, tmp_path, hyper_parameters={**options, "_instantiator": "os.system"}
        )
        assert isinstance(ReIDModule.load_from_checkpoint(path), PPLRModule)
        with pytest.raises(ValueError, match="weights_only=False: a checkpoint's code is never"):
            PPLRModule.load_from_checkpoint(path, weights_only=False)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"extra": Malicious()}, "changed.ckpt: refused, the file holds objects that would"),
            ({"network": described(backbone="resnet5O")}, "changed.ckpt: backbone 'resnet5O' is"),
            (
                {"hyper_parameters": {"new_option": 1}},
                "changed.ckpt: PPLRModule has no option new_option",
            ),
            ({"network": described(num_parts=3)}, "does not fit the model"),
            ({"network": {**described(), "class_path": "os.system"}}, "changed.ckpt: network os.s"),
            ({"network": {}}, "changed.ckpt: a checkpoint without 'class_path'"),
            ({"method": "Other"}, "changed.ckpt: the model is a Other, which is no ReIDModule"),
        ],
    )
    def test_what_cannot_be_built(self, tiny_checkpoint, tmp_path, monkeypatch, content, message):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match=message):
            ReIDModule.load_from_checkpoint(change(tiny_checkpoint, tmp_path, **content))
        assert not (tmp_path / "executed").exists()


class TestEmbed:
    """Vectors of images as they are, with what the checkpoint says."""

    @pytest.fixture
    def paths(self, drawn):
        return sorted((drawn / "query").iterdir())[:4]

    def test_of_a_loaded_checkpoint(self, tiny_checkpoint, paths):
        made = tiny()
        loaded = PPLRModule.load_from_checkpoint(tiny_checkpoint).train()
        images = torch.stack([EvalTransform((64, 32))(read_image(str(path))) for path in paths])
        with torch.no_grad():
            assert torch.equal(loaded.embed(paths), made(images))
        assert loaded.training
        assert loaded.fingerprint() == made.fingerprint()

    def test_other_features(self, tiny_checkpoint, paths):
        loaded = PPLRModule.load_from_checkpoint(tiny_checkpoint)
        assert loaded.embed(paths, kind="both", batch_size=3).shape == (4, 3 * 96)
        assert loaded.fingerprint(kind="both").features == "both"

    def test_another_image_size(self, tiny_checkpoint, paths):
        loaded = PPLRModule.load_from_checkpoint(tiny_checkpoint)
        assert not torch.equal(loaded.embed(paths, image_size=(96, 32)), loaded.embed(paths))
        assert loaded.fingerprint(image_size=(96, 32)).preprocessing.image_size == (96, 32)
        assert loaded.fingerprint().preprocessing.image_size == (64, 32)

    def test_before_a_training_the_network_says(self, module, paths):
        assert module.prepared().image_size == (384, 128)
        assert module.embed(paths[:1]).shape == (1, 512)
        assert module.embed(paths, image_size=(64, 32)).shape == (4, 512)
        half = PPLRModule(network("test_vit", image_size=(64, 32), last_stride=2)).prepared()
        assert half == Preprocessing((64, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def test_the_data_module_counts_where_there_is_one(self, tiny_checkpoint, tmp_path):
        loaded = PPLRModule.load_from_checkpoint(tiny_checkpoint)
        loaded.trainer = SimpleNamespace(
            ckpt_path=None, datamodule=PPLRDataModule(image_size=(48, 16)), world_size=1
        )
        loaded.setup("test")
        assert loaded.preprocessing.image_size == (48, 16)
        loaded.trainer = None
        again = PPLRModule.load_from_checkpoint(save(loaded, tmp_path / "again.ckpt"))
        assert again.preprocessing.image_size == (48, 16)
        loaded.on_load_checkpoint(
            torch.load(tiny_checkpoint, weights_only=True)
        )  # to go on with new data
        assert loaded.preprocessing.image_size == (48, 16)


def test_can_be_pickled_whole(tmp_path):
    made = tiny()
    torch.save(made, tmp_path / "module.pt")
    loaded = torch.load(tmp_path / "module.pt", weights_only=False)
    images = torch.rand(2, 3, 64, 32)
    torch.testing.assert_close(loaded.eval()(images), made(images))
