from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from timm.layers import resample_abs_pos_embed

from pplr_lightning import PPLRModule
from pplr_lightning.layouts import Weights, load_weights, read_weights, to_official
from pplr_lightning.models import PartModel

from .other_projects import PPLR, Contrast, OpenUnReID, wrapped

KEYS = json.loads((Path(__file__).parent / "official_checkpoint_keys.json").read_text())
IMAGES = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(1))
RESNET18 = {"backbone": "resnet18.tv_in1k"}


def shapes(tensors) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def apply(model):
    with torch.no_grad():
        return model.eval()(IMAGES)


def build(kind, **options):
    torch.manual_seed(0)
    return kind(**options)


@pytest.fixture(scope="module")
def authors():
    return build(PPLR)


@pytest.fixture(scope="module")
def best(authors, tmp_path_factory):
    """`best.pth` as the authors' training writes it: nothing around the state dict."""
    path = tmp_path_factory.mktemp("authors") / "best.pth"
    torch.save(wrapped(authors), path)
    return path


@pytest.fixture(scope="module")
def module(best):
    return PPLRModule.load_official(best)


@pytest.fixture(scope="module")
def small():
    """The state dict of a smaller network of the authors'."""
    return wrapped(build(PPLR, depth=18))


@pytest.fixture
def save(tmp_path):
    def save_as(content):
        torch.save(content, tmp_path / "other.pth")
        return tmp_path / "other.pth"

    return save_as


class TestAuthors:
    def test_reimplementation_has_the_published_names_and_shapes(self):
        with torch.device("meta"):
            assert shapes(wrapped(PPLR(rows=3000))) == KEYS

    def test_features_are_theirs(self, authors, module):
        whole, parts = apply(authors)
        assert torch.allclose(apply(module), whole, atol=1e-5)
        output = apply(module.model)
        assert torch.allclose(nnf.normalize(output.part_features, dim=1), parts, atol=1e-5)
        for part, name in enumerate(("classifier0", "classifier1", "classifier2")):
            logits = getattr(authors, name)(output.part_features[:, :, part])
            assert torch.allclose(output.part_logits[:, :, part], logits, atol=1e-4)
        assert torch.allclose(output.logits, authors.classifier(output.features), atol=1e-4)

    def test_options_are_the_checkpoints_and_the_callers(self, save, small):
        options = {"norm_batch_size": 8, "beta": 0.3}
        module = PPLRModule.load_official(save(small), **RESNET18, **options)
        assert (module.model.num_parts, module.model.max_clusters) == (3, 20)
        assert module.model.norm_batch_size == 8
        assert (module.hparams.beta, module.hparams.max_clusters) == (0.3, 20)

    def test_nothing_else_is_loaded_over_it(self, module, monkeypatch):
        calls = []
        monkeypatch.setattr(PartModel, "load_pretrained_backbone", lambda _: calls.append("loaded"))
        module.setup("test")
        assert module.pretrained
        assert calls == []

    def test_another_number_of_rows_leaves_the_classifiers_out(self, save, small, caplog):
        path = save(small)
        with caplog.at_level(logging.INFO):
            module = PPLRModule.load_official(path, **RESNET18, max_clusters=30)
        assert f"tensors from {path} (of the authors of PPLR; without classifiers)" in caplog.text
        weights = module.model.state_dict()
        assert weights["head.classifier.weight"].shape == (30, 512)
        assert torch.equal(weights["backbone.conv1.weight"], small["module.base.0.weight"])

    def test_inside_a_dictionary_and_without_the_prefix(self, save, small):
        bare = {name.removeprefix("module."): tensor for name, tensor in small.items()}
        weights = read_weights(save({"state_dict": bare, "epoch": 3, "best_mAP": 0.8}))
        assert (weights.project, weights.num_parts) == ("the authors of PPLR", 3)
        assert torch.equal(weights.tensors["head.neck.running_mean"], bare["bnneck.running_mean"])

    def test_there_and_back_is_the_same_to_the_bit(self, module, best, save):
        back = to_official(read_weights(save({"state_dict": module.state_dict()})))
        there = torch.load(best, weights_only=True)
        assert list(back) == list(there)
        for name, tensor in there.items():
            assert back[name].dtype == tensor.dtype
            assert torch.equal(back[name], tensor), name

    def test_of_ours_names_and_shapes_are_the_published_ones(self):
        module = PPLRModule(pretrained=False)  # all options as published
        tensors = {n: t for n, t in module.model.state_dict().items() if hasattr(t, "shape")}
        official = to_official(Weights("own.ckpt", None, tensors))
        assert shapes(official) == KEYS
        assert list(official) == list(KEYS)


def of_openunreid(model: OpenUnReID) -> dict[str, object]:
    return {"state_dict_1": wrapped(model), "epoch": 50, "best_mAP": np.float64(0.7)}


def with_teacher(model: OpenUnReID) -> dict[str, object]:
    student = {name: tensor + 1 for name, tensor in wrapped(model, "module.net.").items()}
    return {"state_dict_1": student | wrapped(model, "module.mean_net."), "epoch": 50}


def of_contrast(model: Contrast) -> dict[str, object]:
    return {"state_dict": wrapped(model), "epoch": 50, "best_mAP": np.float64(0.7)}


class TestGlobalBranchAlone:
    @pytest.mark.parametrize(
        ("kind", "gem", "content"),
        [
            pytest.param(Contrast, False, of_contrast, id="SpCL"),
            pytest.param(Contrast, True, of_contrast, id="Cluster Contrast"),
            pytest.param(OpenUnReID, True, of_openunreid, id="OpenUnReID"),
            pytest.param(OpenUnReID, False, of_openunreid, id="OpenUnReID, average"),
            pytest.param(OpenUnReID, True, with_teacher, id="OpenUnReID, teacher"),
        ],
    )
    def test_features_are_theirs(self, save, caplog, kind, gem, content):
        other = build(kind, gem=gem)
        with caplog.at_level(logging.INFO):
            module = PPLRModule.load_official(save(content(other)), **RESNET18, num_parts=2)
        assert torch.allclose(apply(module), apply(other), atol=1e-5)
        assert (module.model.gem is not None) == gem
        assert module.model.max_clusters == 3000
        neck = module.model.head.neck.state_dict()
        for head in module.model.part_heads:
            assert all(torch.equal(neck[name], t) for name, t in head.neck.state_dict().items())
        assert "the necks of the parts start as the global one; without classif" in caplog.text


class TestRefused:
    @pytest.fixture(scope="class")
    def spcl(self):
        return of_contrast(build(Contrast))

    def refusal(self, path, **options) -> str:
        with pytest.raises(ValueError, match=path.name) as caught:
            PPLRModule.load_official(path, **options)
        return str(caught.value)

    def test_no_file(self):
        with pytest.raises(FileNotFoundError, match=r"nowhere.pth: no such checkpoint"):
            PPLRModule.load_official("nowhere.pth")

    def test_code(self, save, tmp_path):
        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "executed"), "w"))

        path = save({"module.base.0.weight": Evil()})
        assert "refused, the file holds objects that would execute code" in self.refusal(path)
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"weights": 1}, "(it holds no tensors)"),
            ([1, 2], "(it holds no tensors)"),
            ({}, "(it holds no tensors)"),
            ({"state_dict": {"fc.weight": torch.zeros(2)}}, "(its first tensor is fc.weight)"),
        ],
    )
    def test_other_content(self, save, content, message):
        error = self.refusal(save(content))
        assert "no weights of this library, of PPLR's authors, Cluster Contrast, SpCL or" in error
        assert message in error

    def test_this_librarys(self, save):
        path = save({"state_dict": PPLRModule("resnet10t", max_clusters=5).state_dict()})
        assert "load it with PPLRModule.load_from_checkpoint" in self.refusal(path)

    @pytest.mark.parametrize(
        ("name", "place"),
        [
            ("feat.weight", "Cluster Contrast or SpCL"),  # an embedding layer
            ("base.1.BN_S.weight", "Cluster Contrast or SpCL"),  # statistics of each domain
            ("base.4.0.bn1.IN.weight", "Cluster Contrast or SpCL"),  # ResNet-IBN
        ],
    )
    def test_layers_that_are_not_here(self, save, spcl, name, place):
        weights = {**spcl["state_dict"], f"module.{name}": torch.zeros(2)}
        error = self.refusal(save({"state_dict": weights}))
        assert f"{name} has no place in a ResNet of torchvision with a BN neck" in error
        assert place in error

    def test_another_backbone(self, save, spcl):
        error = self.refusal(save(spcl), max_clusters=5)
        assert "does not fit the model: backbone.layer1.0.bn3.bias is missing in the ch" in error
        assert "set backbone (resnet50.tv_in1k) to the one that it was trained with" in error

    def test_another_shape(self, save, spcl):
        weights = {**spcl["state_dict"], "module.base.0.weight": torch.zeros(64, 3, 3, 3)}
        error = self.refusal(save({"state_dict": weights}), **RESNET18)
        assert "backbone.conv1.weight is (64, 3, 3, 3) in the checkpoint, (64, 3, 7, 7)" in error

    def test_another_number_of_parts(self, save, small):
        error = self.refusal(save(small), **RESNET18, num_parts=2)
        assert "part_heads.2.classifier.weight is (20, 512) in the checkpoint, missing" in error
        assert error.endswith("set num_parts to 3, with which it was trained")

    @pytest.mark.parametrize(("trained", "given"), [("gem", "avg"), ("avg", "gem")])
    def test_another_pooling(self, save, trained, given):
        path = save(of_contrast(build(Contrast, gem=trained == "gem")))
        error = self.refusal(path, **RESNET18, pooling=given)
        assert error.endswith(f"set pooling to {trained}, with which it was trained")

    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({"backbone": "resnet10t"}, "backbone.conv1.0.weight"),
            ({"backbone": "resnet18.tv_in1k", "pooling": "gem"}, "gem.p"),
        ],
    )
    def test_for_the_authors(self, save, options, name):
        module = PPLRModule(max_clusters=5, **options)
        weights = read_weights(save({"state_dict": module.state_dict()}))
        with pytest.raises(ValueError, match=rf"other.pth: {name} has no place in the model of"):
            to_official(weights)


class TestOwn:
    @pytest.fixture
    def own(self):
        return build(PPLRModule, backbone="resnet10t", max_clusters=5, num_parts=2)

    @pytest.fixture
    def checkpoint(self, own, save):
        return save({"state_dict": own.state_dict()})

    @pytest.mark.parametrize("rows", [5, 9])  # as many as in the checkpoint, and others
    def test_all_but_the_classifiers(self, own, checkpoint, rows):
        other = PartModel("resnet10t", num_parts=2, max_clusters=rows)
        classifier = other.head.classifier.weight.detach().clone()
        load_weights(other, read_weights(checkpoint), classifiers=False)
        assert torch.equal(other.head.classifier.weight, classifier)
        for name, value in own.model.state_dict().items():
            if ".classifier." not in name:
                assert torch.equal(other.state_dict()[name], value), name

    @pytest.mark.parametrize(
        ("options", "hint"),
        [({"num_parts": 3}, "set num_parts to 2"), ({"backbone": "resnet14t"}, "set backbone (r")],
    )
    def test_another_model(self, checkpoint, options, hint):
        other = PartModel(**{"backbone": "resnet10t", "num_parts": 2, "max_clusters": 9, **options})
        with pytest.raises(ValueError, match=r"other.pth does not fit the model: ") as caught:
            load_weights(other, read_weights(checkpoint), classifiers=False)
        assert hint in str(caught.value)


def test_position_embeddings_of_images_of_another_size(tmp_path, caplog):
    """As of a ViT that was pretrained on smaller images."""
    options = {"last_stride": 2, "max_clusters": 5, "pretrained": False}
    first = PPLRModule("test_vit", image_size=(96, 48), **options)
    torch.save({"state_dict": first.state_dict()}, tmp_path / "small.ckpt")
    model = PPLRModule("test_vit", image_size=(128, 64), **options).model
    with caplog.at_level(logging.INFO):
        load_weights(model, read_weights(tmp_path / "small.ckpt"), classifiers=False)
    own = first.model.backbone
    expected = resample_abs_pos_embed(own.pos_embed, [8, 4], [6, 3])
    assert torch.equal(model.backbone.pos_embed, expected)
    assert torch.equal(model.backbone.cls_token, own.cls_token)
    assert "position embeddings resampled from 6 x 3 to 8 x 4" in caplog.text
