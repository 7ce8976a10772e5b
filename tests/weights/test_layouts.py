from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

from pplr_lightning import PPLRModule, SimCLRModule
from pplr_lightning.networks import PartNetwork
from pplr_lightning.weights.layouts import (
    Weights,
    load_weights,
    load_weights_file,
    read_weights,
    to_official,
)

from ..other_projects import PPLR, Contrast, OpenUnReID, wrapped

KEYS = json.loads((Path(__file__).parents[1] / "official_checkpoint_keys.json").read_text())
IMAGES = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(1))
PIXELS = (IMAGES * 60 + 120).clamp(0, 255).to(torch.uint8)
RESNET18 = {"backbone": "resnet18.tv_in1k"}


def shapes(tensors) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def apply(model):
    with torch.no_grad():
        return model.eval()(IMAGES)


def build(kind, **options):
    torch.manual_seed(0)
    return kind(**options)


def make_network(backbone="resnet10t", **options):
    return PartNetwork(backbone, **{"weights": None, **options})


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
        output = apply(module.network)
        assert torch.allclose(nnf.normalize(output.part_features, dim=1), parts, atol=1e-5)
        whole, part_logits = module.logits(output)
        for part, name in enumerate(("classifier0", "classifier1", "classifier2")):
            logits = getattr(authors, name)(output.part_features[:, :, part])
            assert torch.allclose(part_logits[:, :, part], logits, atol=1e-4)
        assert torch.allclose(whole, authors.classifier(output.features), atol=1e-4)

    def test_options_are_the_checkpoints_and_the_callers(self, save, small):
        given = {**RESNET18, "norm_batch_size": 8}
        module = PPLRModule.load_official(save(small), network=given, beta=0.3)
        assert (module.network.num_parts, module.max_classes) == (3, 20)
        assert module.network.norm_batch_size == 8
        assert (module.hparams.beta, module.hparams.max_clusters) == (0.3, 20)

    @pytest.mark.parametrize("weights", [{}, {"weights": "pretrained"}])
    def test_nothing_else_is_loaded_over_it(self, save, small, monkeypatch, weights):
        module = PPLRModule.load_official(save(small), network={**RESNET18, **weights})
        monkeypatch.setattr("timm.create_model", None)  # whoever loads others asks timm for them
        module.network.load_weights()
        apply(module)
        found = module.network.backbone.conv1.weight
        assert torch.equal(found, small["module.base.0.weight"])

    def test_another_number_of_rows_leaves_the_classifiers_out(self, save, small, caplog):
        path = save(small)
        with caplog.at_level(logging.INFO):
            module = PPLRModule.load_official(path, network=RESNET18, max_clusters=30)
        count = len(module.network.state_dict())
        assert f"{count} tensors from {path} (of the authors of PPLR)" in caplog.text
        weights = module.state_dict()
        for name in ("classifier", "part_classifiers.0", "part_classifiers.2"):
            assert weights[f"{name}.weight"].shape == (30, 512)
        assert torch.equal(weights["network.backbone.conv1.weight"], small["module.base.0.weight"])

    def test_a_network_without_parts_takes_the_global_branch(self, save, caplog):
        authors = build(PPLR, depth=18).eval()
        path = save(wrapped(authors))
        with caplog.at_level(logging.INFO):
            module = PPLRModule.load_official(path, network={**RESNET18, "num_parts": 0})
        assert "(of the authors of PPLR; without the necks of the parts)" in caplog.text
        assert torch.allclose(apply(module), apply(authors)[0], atol=1e-5)
        output = apply(module.network)
        assert output.part_features.shape == (2, 512, 0)
        found, part_logits = module.logits(output)
        assert torch.allclose(found, authors.classifier(output.features), atol=1e-4)
        assert part_logits.shape == (2, 20, 0)

    def test_inside_a_dictionary_and_without_the_prefix(self, save, small):
        bare = {name.removeprefix("module."): tensor for name, tensor in small.items()}
        weights = read_weights(save({"state_dict": bare, "epoch": 3, "best_mAP": 0.8}))
        assert (weights.project, weights.num_parts) == ("the authors of PPLR", 3)
        assert torch.equal(weights.tensors["neck.running_mean"], bare["bnneck.running_mean"])

    def test_safetensors(self, small, tmp_path):
        tensors = {name: tensor.contiguous() for name, tensor in small.items()}
        save_file(tensors, tmp_path / "best.safetensors")
        weights = read_weights(tmp_path / "best.safetensors")
        assert weights.project == "the authors of PPLR"
        assert torch.equal(weights.tensors["neck.weight"], small["module.bnneck.weight"])

    def test_there_and_back_is_the_same_to_the_bit(self, module, best, save):
        back = to_official(read_weights(save({"state_dict": module.state_dict()})))
        there = torch.load(best, weights_only=True)
        assert list(back) == list(there)
        for name, tensor in there.items():
            assert back[name].dtype == tensor.dtype
            assert torch.equal(back[name], tensor), name

    def test_of_ours_names_and_shapes_are_the_published_ones(self):
        module = PPLRModule(PartNetwork(weights=None))  # all options as published
        tensors = {n: t for n, t in module.state_dict().items() if hasattr(t, "shape")}
        own = {n.removeprefix("network."): tensor for n, tensor in tensors.items()}
        official = to_official(Weights("own.ckpt", None, own))
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
            module = PPLRModule.load_official(
                save(content(other)), network={**RESNET18, "num_parts": 2}
            )
        assert torch.allclose(apply(module), apply(other), atol=1e-5)
        assert (module.network.gem is not None) == gem
        assert module.max_classes == 3000
        necks = module.network.part_necks
        own = module.network.neck.state_dict()
        assert len(necks) == 2
        for neck in necks:
            assert all(torch.equal(own[name], t) for name, t in neck.state_dict().items())
        assert "; the necks of the parts start as the global one)" in caplog.text

    @pytest.mark.parametrize(
        ("kind", "content"), [(Contrast, of_contrast), (OpenUnReID, of_openunreid)]
    )
    def test_fits_a_network_without_parts(self, save, caplog, kind, content):
        other = build(kind, gem=True)
        with caplog.at_level(logging.INFO):
            module = PPLRModule.load_official(
                save(content(other)), network={**RESNET18, "num_parts": 0}
            )
        assert torch.allclose(apply(module), apply(other), atol=1e-5)
        assert len(module.network.part_necks) == 0
        assert "necks" not in caplog.text


def test_instance_norms_of_cluster_contrast(save):
    """Its ResNet-50-IBN-a, numbered as its ResNet-50 is."""
    ours = build(lambda: make_network("resnet50_ibn_a", pooling="gem"))
    stages = {f"layer{n}.": f"base.{n + 3}." for n in range(1, 5)}
    names = {"conv1.": "base.0.", "bn1.": "base.1.", **stages}
    weights = {
        f"module.{names[first]}{name.removeprefix(first)}": value + 0.5
        for name, value in ours.backbone.state_dict().items()
        for first in names
        if name.startswith(first)
    }
    weights["module.gap.p"] = torch.tensor([2.5])
    weights |= {f"module.feat_bn.{n}": v + 0.1 for n, v in ours.neck.state_dict().items()}
    path = save({"state_dict": weights, "epoch": 50})
    line = load_weights_file(ours, path)
    assert "(of Cluster Contrast or SpCL; the necks of the parts start as the global one)" in line
    found = ours.backbone.layer1[0].bn1.IN.weight
    assert torch.equal(found, weights["module.base.4.0.bn1.IN.weight"])
    with pytest.raises(ValueError, match=r"bn1.IN.weight has no place in the model of PPLR's auth"):
        to_official(read_weights(path))


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
        path = save({"state_dict": PPLRModule(make_network(), max_clusters=5).state_dict()})
        assert "load it with PPLRModule.load_from_checkpoint" in self.refusal(path)

    @pytest.mark.parametrize(
        ("name", "place"),
        [
            ("feat.weight", "Cluster Contrast or SpCL"),  # an embedding layer
            ("base.1.BN_S.weight", "Cluster Contrast or SpCL"),  # statistics of each domain
            ("base.7.0.bn1.IN.weight", "Cluster Contrast or SpCL"),  # half instance to the end
        ],
    )
    def test_layers_that_are_not_here(self, save, spcl, name, place):
        weights = {**spcl["state_dict"], f"module.{name}": torch.zeros(2)}
        error = self.refusal(save({"state_dict": weights}))
        assert f"{name} has no place in a ResNet of torchvision with a BN neck" in error
        assert place in error

    def test_the_stem_of_mmt(self, save, spcl):
        """Its `base` has a layer less: the first stage stands where SpCL's pooling does."""
        layers = {f"base.{n}.": f"base.{n - 1}." for n in (4, 5, 6, 7)}
        names = [name.removeprefix("module.") for name in spcl["state_dict"]]
        renamed = [layers.get(name[:7], name[:7]) + name[7:] for name in names]
        path = save({"state_dict": dict(zip(renamed, spcl["state_dict"].values(), strict=True))})
        assert "of MMT's authors, whose ResNet has no ReLU between" in self.refusal(path)

    def test_instance_norms_of_the_authors(self, save, small):
        error = self.refusal(save({**small, "module.base.4.0.bn1.IN.weight": torch.zeros(2)}))
        assert "base.4.0.bn1.IN.weight has no place in a ResNet of torchvision with a BN" in error

    def test_another_backbone(self, save, spcl):
        error = self.refusal(save(spcl), max_clusters=5)
        assert "does not fit the network: backbone.layer1.0.bn3.bias is missing in the ch" in error
        assert "set backbone (resnet50.tv_in1k) to the one that it was trained with" in error

    def test_another_shape(self, save, spcl):
        weights = {**spcl["state_dict"], "module.base.0.weight": torch.zeros(64, 3, 3, 3)}
        error = self.refusal(save({"state_dict": weights}), network=RESNET18)
        assert "backbone.conv1.weight is (64, 3, 3, 3) in the checkpoint, (64, 3, 7, 7)" in error

    def test_another_number_of_parts(self, save, small):
        error = self.refusal(save(small), network={**RESNET18, "num_parts": 2})
        assert "part_necks.2.bias is (512,) in the checkpoint, missing here" in error
        assert error.endswith("set num_parts to 3, with which it was trained")

    @pytest.mark.parametrize(("trained", "given"), [("gem", "avg"), ("avg", "gem")])
    def test_another_pooling(self, save, trained, given):
        path = save(of_contrast(build(Contrast, gem=trained == "gem")))
        error = self.refusal(path, network={**RESNET18, "pooling": given})
        assert error.endswith(f"set pooling to {trained}, with which it was trained")

    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({"backbone": "resnet10t"}, "backbone.conv1.0.weight"),
            ({"backbone": "resnet18.tv_in1k", "pooling": "gem"}, "gem.p"),
        ],
    )
    def test_for_the_authors(self, save, options, name):
        module = PPLRModule(make_network(**options), max_clusters=5)
        weights = read_weights(save({"state_dict": module.state_dict()}))
        with pytest.raises(ValueError, match=rf"other.pth: {name} has no place in the model of"):
            to_official(weights)


class TestOwn:
    @pytest.fixture
    def own(self):
        """With statistics of its own."""
        module = build(PPLRModule, network=make_network(num_parts=2), max_clusters=5)
        module.network(torch.randn(16, 3, 64, 32))
        return module

    @pytest.fixture
    def checkpoint(self, own, save):
        return save({"state_dict": own.state_dict()})

    @pytest.mark.parametrize("rows", [5, 9])  # as many as in the checkpoint, and others
    def test_all_but_the_classifiers(self, own, checkpoint, rows):
        weights = read_weights(checkpoint)
        assert set(weights.classifiers) == {
            "classifier.weight", "part_classifiers.0.weight", "part_classifiers.1.weight",
        }  # fmt: skip
        other = PPLRModule(make_network(num_parts=2), max_clusters=rows)
        classifier = other.classifier.weight.detach().clone()
        load_weights(other.network, weights)
        assert torch.equal(other.classifier.weight, classifier)
        for name, value in own.network.state_dict().items():
            assert torch.equal(other.network.state_dict()[name], value), name

    def test_another_methods(self, save):
        pytest.importorskip("pytorch_metric_learning")
        simclr = build(SimCLRModule, network=make_network(num_parts=2), projection_size=8)
        weights = read_weights(save({"state_dict": simclr.state_dict()}))
        assert (weights.project, weights.num_parts, weights.max_clusters) == (None, 2, None)
        network = make_network(num_parts=2)
        load_weights(network, weights)
        for name, value in simclr.network.state_dict().items():
            assert torch.equal(network.state_dict()[name], value), name

    def test_with_and_without_parts(self, own, checkpoint, save):
        """The global branch is the same; the parts start as it."""
        network = make_network(num_parts=0)
        report = load_weights(network, read_weights(checkpoint))
        assert report.endswith(f"tensors from {checkpoint} (without the necks of the parts)")
        assert torch.equal(apply(network).features, apply(own.network).features)
        path = save({"state_dict": PPLRModule(network, max_clusters=5).state_dict()})
        with_parts = make_network(num_parts=3)
        report = load_weights(with_parts, read_weights(path))
        assert report.endswith("(the necks of the parts start as the global one)")
        assert torch.equal(apply(with_parts).features, apply(network).features)
        mean = network.neck.running_mean
        assert all(torch.equal(neck.running_mean, mean) for neck in with_parts.part_necks)

    @pytest.mark.parametrize(
        ("options", "hint"),
        [({"num_parts": 3}, "set num_parts to 2"), ({"backbone": "resnet14t"}, "set backbone (r")],
    )
    def test_another_network(self, checkpoint, options, hint):
        other = make_network(**{"num_parts": 2, **options})
        with pytest.raises(ValueError, match=r"other.pth does not fit the network: ") as caught:
            load_weights(other, read_weights(checkpoint))
        assert hint in str(caught.value)


class TestToStartFrom:
    """`network.weights`: a file of a known layout, or else one of the backbone's weights."""

    @pytest.fixture
    def own(self):
        module = build(PPLRModule, network=make_network("resnet18.tv_in1k"), max_clusters=5)
        module.network(torch.randn(16, 3, 64, 32))
        return module.eval()

    def embed(self, path, **options):
        """Embeds as a module does that was never trained."""
        torch.manual_seed(2)
        network = PartNetwork("resnet18.tv_in1k", weights=str(path), **options)
        kind = "both" if network.num_parts else "global"
        return PPLRModule(network).embed(PIXELS, kind=kind, image_size=(64, 32))

    def test_this_librarys(self, own, save):
        expected = own.embed(PIXELS, kind="both", image_size=(64, 32))
        found = self.embed(save({"state_dict": own.state_dict()}))
        assert torch.equal(found, expected)

    def test_is_not_random_in_silence(self, own, save):
        """Whatever is asked of a module first, it has the weights."""
        weights = str(save({"state_dict": own.state_dict()}))
        options = {"backbone": "resnet18.tv_in1k", "weights": weights}
        images = torch.zeros(2, 3, 64, 32)
        with torch.no_grad():
            expected = own.branches(images)
            for use in (PPLRModule.branches, lambda module, images: module.network(images)):
                module = PPLRModule(PartNetwork(**options)).eval()
                found = [nnf.normalize(rows, dim=1) for rows in use(module, images)]
                assert all(map(torch.allclose, found, expected))
        module = PPLRModule(PartNetwork(**options))
        module.load_state_dict({"classifier.weight": torch.ones(3000, 512)}, strict=False)
        assert module.fingerprint().weights == own.fingerprint().weights

    def test_every_project(self, save):
        for other in (PPLR(depth=18), Contrast(gem=True), OpenUnReID(gem=False)):
            module = PPLRModule.load_official(save(wrapped(other)), network=RESNET18)
            pooling = module.network.options["pooling"]
            found = self.embed(save(wrapped(other)), pooling=pooling)
            expected = module.embed(PIXELS, kind="both", image_size=(64, 32))
            assert torch.equal(found, expected)

    def test_backbone_alone_leaves_the_necks(self, own, save):
        path = save({"encoder": own.network.backbone.state_dict()})
        network = build(make_network, backbone="resnet18.tv_in1k")
        fresh = {name: value.clone() for name, value in network.neck.state_dict().items()}
        report = load_weights_file(network, path)
        assert f"tensors from {path}, under the prefix encoder." in report
        for name, value in own.network.backbone.state_dict().items():
            assert torch.equal(network.backbone.state_dict()[name], value), name
        assert all(torch.equal(network.neck.state_dict()[n], value) for n, value in fresh.items())

    @pytest.mark.parametrize("parts", [0, 3])
    def test_safetensors_of_a_known_layout(self, own, tmp_path, parts):
        path = tmp_path / "model.safetensors"
        weights = {n: t for n, t in own.state_dict().items() if n.startswith("network.")}
        save_file(weights, path)
        network = make_network("resnet18.tv_in1k", num_parts=parts)
        load_weights_file(network, path)
        assert torch.equal(apply(network).features, apply(own.network).features)


def test_position_embeddings_of_images_of_another_size(tmp_path, caplog):
    """As of a ViT that was pretrained on smaller images."""
    first = make_network("test_vit", image_size=(96, 48), last_stride=2)
    path = tmp_path / "small.ckpt"
    torch.save({"state_dict": PPLRModule(first, max_clusters=5).state_dict()}, path)
    options = {"image_size": (128, 64), "last_stride": 2, "weights": str(path)}
    network = make_network("test_vit", **options)
    with caplog.at_level(logging.INFO):
        network.load_weights()
    expected = resample_abs_pos_embed(first.backbone.pos_embed, [8, 4], [6, 3])
    assert torch.equal(network.backbone.pos_embed, expected)
    assert torch.equal(network.backbone.cls_token, first.backbone.cls_token)
    assert "position embeddings resampled from 6 x 3 to 8 x 4" in caplog.text
