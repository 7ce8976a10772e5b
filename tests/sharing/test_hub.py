from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from pplr_lightning import PPLRModule, SimCLRModule
from pplr_lightning.methods import ReIDModule
from pplr_lightning.networks import PartNetwork
from pplr_lightning.sharing import hub


def make_network(**options: object) -> PartNetwork:
    return PartNetwork(
        "resnet10t", **{"weights": None, "num_parts": 2, "norm_batch_size": 4, **options}
    )


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A file of weights to start from."""
    path = tmp_path_factory.mktemp("private") / "last.ckpt"
    torch.manual_seed(1)
    torch.save({"state_dict": PPLRModule(make_network(), max_clusters=3).state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def module(start) -> PPLRModule:
    torch.manual_seed(0)
    network = make_network(weights=str(start))
    module = PPLRModule(network, max_clusters=8, camera_weight=0.5)
    with torch.no_grad():
        module.network(torch.randn(4, 3, 64, 32))  # statistics of their own
    return module.eval()


@pytest.fixture
def folder(module, tmp_path) -> Path:
    module.save_pretrained(tmp_path / "shared")
    return tmp_path / "shared"


class TestRoundTrip:
    def test_gives_the_same_features(self, module, folder):
        images = torch.randn(3, 3, 64, 32)
        loaded = PPLRModule.from_pretrained(folder)
        assert not loaded.training
        assert torch.equal(loaded(images), module(images))
        parts, own = loaded.network(images).part_features, module.network(images).part_features
        assert torch.equal(parts, own)

    def test_config_holds_the_options(self, module, folder):
        config = json.loads((folder / "config.json").read_text())
        assert config["method"] == "PPLRModule"
        expected = json.loads(json.dumps(module.options))  # lists for tuples
        expected["network"]["init_args"]["weights"] = "last.ckpt"  # and not its folder
        assert config == expected
        loaded = ReIDModule.from_pretrained(folder)  # which finds the class
        assert type(loaded) is PPLRModule
        assert loaded.options == config  # what it once started from, too
        assert loaded.camera_weight == 0.5

    def test_files(self, folder):
        assert {file.name for file in folder.iterdir()} == {
            "README.md", "config.json", "model.safetensors",
        }  # fmt: skip
        assert not any("classifier" in name for name in load_file(folder / "model.safetensors"))

    def test_an_option_can_be_changed(self, folder):
        loaded = PPLRModule.from_pretrained(folder, beta=0.25, max_clusters=3)
        assert (loaded.beta, loaded.max_classes, loaded.camera_weight) == (0.25, 3, 0.5)

    def test_the_network_can_be_given(self, folder, module):
        network = make_network(chunk_size=4)
        loaded = PPLRModule.from_pretrained(folder, network=network)
        assert loaded.network is network
        images = torch.randn(2, 3, 64, 32)
        assert torch.equal(loaded(images), module(images))

    def test_training_starts_from_the_loaded_weights(self, folder):
        """Not from the file that the shared options name."""
        loaded = PPLRModule.from_pretrained(folder)
        loaded.trainer = SimpleNamespace(ckpt_path=None, datamodule=None)
        before = copy.deepcopy(loaded.network.state_dict())
        loaded.setup("validate")
        after = loaded.network.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_before_a_training_it_is_the_weights_to_start_from(self, start, tmp_path):
        made = PPLRModule(make_network(weights=str(start)))
        made.save_pretrained(tmp_path / "shared")
        shared = load_file(tmp_path / "shared/model.safetensors")
        weights = torch.load(start, weights_only=True)["state_dict"]
        assert "network.part_necks.1.running_mean" in shared
        assert all(torch.equal(tensor, weights[name]) for name, tensor in shared.items())

    def test_is_itself_a_file_of_weights_to_start_from(self, module, folder):
        """With its necks, and not as the weights of a backbone alone."""
        network = make_network(weights=str(folder / "model.safetensors")).eval()
        images = torch.randn(2, 3, 64, 32)
        output, expected = network(images), module.network(images)
        assert torch.equal(output.features, expected.features)
        assert torch.equal(output.part_features, expected.part_features)

    def test_is_copied_and_pickled_like_any_module(self, module):
        images = torch.randn(1, 3, 64, 32)
        assert torch.equal(copy.deepcopy(module)(images), module(images))

    def test_from_the_hub_two_files_are_asked_for(self, folder, module, monkeypatch):
        asked = []

        def download(repo_id=None, filename=None, **options):
            asked.append((repo_id, filename))
            return str(folder / filename)

        monkeypatch.setattr(hub, "hf_hub_download", lambda *given, **o: download(*given, **o))
        monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", download)
        loaded = PPLRModule.from_pretrained("me/model")
        assert asked == [("me/model", "config.json"), ("me/model", "model.safetensors")]
        images = torch.randn(1, 3, 64, 32)
        assert torch.equal(loaded(images), module(images))

    def test_push(self, module, monkeypatch):
        pushed = {}

        def upload(self, *, repo_id, folder_path, **options):
            pushed[repo_id] = {file.name: file.read_bytes() for file in Path(folder_path).iterdir()}
            return "url"

        class Repo:
            repo_id = "me/model"

        monkeypatch.setattr(HfApi, "create_repo", lambda self, **options: Repo)
        monkeypatch.setattr(HfApi, "upload_folder", upload)
        card = {"license": "cc-by-nc-4.0", "data": "crops of my own"}
        assert module.push_to_hub("me/model", model_card_kwargs=card) == "url"
        assert set(pushed["me/model"]) == {"README.md", "config.json", "model.safetensors"}
        assert b"license: cc-by-nc-4.0" in pushed["me/model"]["README.md"]


def test_a_network_without_parts(tmp_path):
    made = PPLRModule(make_network(num_parts=0), max_clusters=8).eval()
    made.save_pretrained(tmp_path / "shared")
    loaded = PPLRModule.from_pretrained(tmp_path / "shared")
    assert loaded.network.num_parts == 0
    images = torch.randn(2, 3, 64, 32)
    assert torch.equal(loaded(images), made(images))


def test_another_method(tmp_path):
    pytest.importorskip("pytorch_metric_learning")
    made = SimCLRModule(make_network(), projection_size=8).eval()
    made.save_pretrained(tmp_path / "shared")
    loaded = SimCLRModule.from_pretrained(tmp_path / "shared")
    images = torch.randn(2, 3, 64, 32)
    assert torch.equal(loaded(images), made(images))
    assert loaded.projector[2].out_features == 8
    shared = load_file(tmp_path / "shared/model.safetensors")
    assert not any("projector" in name for name in shared)
    card = (tmp_path / "shared/README.md").read_text()
    assert "SimCLRModule.from_pretrained(" in card
    assert "PPLR" not in card
    match = r"shared: config.json: the model is a SimCLRModule, which is no PPLRModule"
    with pytest.raises(ValueError, match=match):
        PPLRModule.from_pretrained(tmp_path / "shared")


def test_a_module_trained_on_the_command_line(trained, tmp_path):
    """With the mixin, the command line, checkpoints and sharing go together."""
    module = PPLRModule.load_from_checkpoint(trained / "checkpoints/last.ckpt")
    module.eval().save_pretrained(tmp_path / "shared", model_card_kwargs={"run": trained})
    loaded = PPLRModule.from_pretrained(tmp_path / "shared")
    images = torch.randn(2, 3, 64, 32)
    assert torch.equal(loaded(images), module(images))
    assert loaded.preprocessing == module.preprocessing
    assert loaded.preprocessing.image_size == (64, 32)
    config = json.loads((tmp_path / "shared/config.json").read_text())
    assert config["max_clusters"] == 64  # as given on the command line
    assert not [name for name in config if name.startswith("_")]
    card = (tmp_path / "shared/README.md").read_text()
    assert "- Images: Market-1501 (academic" in card
    assert "- Size and colours: 64 x 32 " in card
    assert "- Labels: Unsupervised: clusters of the images are the labels; identities were" in card
    assert "Labeler: DBSCAN (k1 6, k2 2," in card
    assert "- Start: Random weights of test_resnet" in card
    assert "| mAP | " in card


class TestRefuses:
    def test_a_folder_without_options(self, folder):
        (folder / "config.json").unlink()
        with pytest.raises(FileNotFoundError, match=r"shared: has no config.json; give a folder"):
            PPLRModule.from_pretrained(folder)

    def test_pickled_weights(self, folder, module):
        (folder / "model.safetensors").unlink()
        torch.save(module.state_dict(), folder / "pytorch_model.bin")
        with pytest.raises(FileNotFoundError, match=r"shared: has no model.safetensors"):
            PPLRModule.from_pretrained(folder)

    def test_weights_that_are_cut_off(self, folder):
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:1000])
        with pytest.raises(ValueError, match=r"model.safetensors: no readable safetensors file"):
            PPLRModule.from_pretrained(folder)

    def test_weights_of_another_model(self, folder):
        file = folder / "model.safetensors"
        weights = load_file(file)
        del weights["network.neck.weight"]
        save_file(weights, file)
        match = r"does not fit the model: network.neck.weight is missing in the checkpoint"
        with pytest.raises(ValueError, match=match):
            PPLRModule.from_pretrained(folder)

    def test_options_of_another_class(self, folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "temperature": 0.1}))
        match = r"shared: config.json: PPLRModule has no option temperature"
        with pytest.raises(ValueError, match=match):
            PPLRModule.from_pretrained(folder)


def test_writes_through_no_link(module, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "shared").mkdir()
    for name in ("model.safetensors", "config.json"):
        (tmp_path / "shared" / name).symlink_to(precious)
    module.save_pretrained(tmp_path / "shared")
    assert precious.read_text() == "precious"
    assert type(module).from_pretrained(tmp_path / "shared").options["max_clusters"] == 8
