from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from pplr_lightning import PPLRModule, SimCLRModule
from pplr_lightning.networks import PartNetwork
from pplr_lightning.sharing import exporter

from ..tiny import module, save

pytest.importorskip("onnxruntime")
SIZE = ["--image_size", "64", "32"]
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")


@pytest.fixture(scope="module")
def checkpoint(trained) -> Path:
    return trained / "checkpoints/last.ckpt"


@pytest.mark.parametrize(("format", "name"), [("onnx", "a.onnx"), ("torch", "a.pt2")])
def test_exports_what_was_trained(format, name, checkpoint, run, tmp_path, capsys):
    out = tmp_path / name
    difference = run(
        "export", "--ckpt_path", str(checkpoint), "--format", format, "--out", str(out), *SIZE
    )
    assert [file.name for file in tmp_path.iterdir()] == [name]
    printed = capsys.readouterr().out
    assert f"{out}: images (batch, 3, 64, 32) -> L2-normalised features (batch, 96)" in printed
    assert float(re.findall(r"images is (\S+e-\d+|0.0e\+00)$", printed, re.M)[0]) <= 1e-4
    assert difference <= 1e-4
    images = torch.randn(3, 3, 64, 32)
    if format == "torch":
        features = torch.export.load(out).module()(images)
    else:
        import onnxruntime

        features = torch.from_numpy(
            onnxruntime.InferenceSession(out).run(None, {"images": images.numpy()})[0]
        )
    module = PPLRModule.load_from_checkpoint(checkpoint).eval()
    torch.testing.assert_close(features, module(images).detach(), rtol=0, atol=1e-5)


def read_metadata(path: Path) -> dict[str, str]:
    extra = {"metadata.json": ""}
    torch.export.load(path, extra_files=extra)
    return json.loads(extra["metadata.json"])


def test_exports_another_methods(run, tmp_path):
    pytest.importorskip("pytorch_metric_learning")
    network = PartNetwork("test_resnet", image_size=(64, 32), weights=None, num_parts=0)
    module = SimCLRModule(network, projection_size=8)
    path, out = save(module, tmp_path / "simclr.ckpt"), tmp_path / "a.pt2"
    run("export", f"--ckpt_path={path}", "--format=torch", f"--out={out}")
    images = torch.randn(2, 3, 64, 32)
    features = torch.export.load(out).module()(images)
    torch.testing.assert_close(features, module.eval()(images).detach(), rtol=0, atol=1e-5)


def test_takes_the_preprocessing_that_the_checkpoint_names(checkpoint, run, tmp_path):
    named = torch.load(checkpoint, weights_only=True)
    named["preprocessing"] = {"image_size": (64, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    path = tmp_path / "named.ckpt"
    torch.save(named, path)
    out = tmp_path / "a.pt2"
    run("export", "--ckpt_path", str(path), "--format", "torch", "--out", str(out))
    metadata = read_metadata(out)
    assert metadata["image_size"] == "[64, 32]"
    assert metadata["mean"] == "[0.5, 0.5, 0.5]"
    assert metadata["std"] == "[0.25, 0.25, 0.25]"


def test_without_a_preprocessing_takes_the_networks_own(checkpoint, run, tmp_path):
    other = torch.load(checkpoint, weights_only=True)
    del other["preprocessing"]
    other["network"]["init_args"]["image_size"] = (96, 32)
    torch.save(other, tmp_path / "converted.ckpt")
    out = tmp_path / "a.pt2"
    run("export", f"--ckpt_path={tmp_path / 'converted.ckpt'}", "--format=torch", f"--out={out}")
    metadata = read_metadata(out)
    assert metadata["image_size"] == "[96, 32]"
    assert metadata["mean"] == "[0.5, 0.5, 0.5]"


def test_for_a_tracker(checkpoint, run, tmp_path):
    out = tmp_path / "a.torchscript"
    words = ["--format=torchscript", "--input=unit", "--half", f"--out={out}", *SIZE]
    run("export", f"--ckpt_path={checkpoint}", *words)
    extra = {"metadata.json": ""}
    torch.jit.load(out, _extra_files=extra)
    metadata = json.loads(extra["metadata.json"])
    assert metadata["value_range"] == "[0, 1]"
    assert metadata["input"] == "images (batch, 3, 64, 32), float16"


def test_imports_nothing_that_the_checkpoint_names(checkpoint, run, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('imported').touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    named = torch.load(checkpoint, weights_only=True)
    named["hyper_parameters"]["_instantiator"] = "evil.make"
    torch.save(named, tmp_path / "named.ckpt")
    out = tmp_path / "a.pt2"
    run("export", f"--ckpt_path={tmp_path / 'named.ckpt'}", "--format=torch", f"--out={out}", *SIZE)
    assert out.is_file()
    assert not (tmp_path / "imported").exists()


class TestRefuses:
    """One line, exit code 1, no file; before a model is built where it can be known."""

    @pytest.fixture
    def refused(self, run, tmp_path, capsys):
        def call(match, *words, out="a.pt2", format="torch"):
            path = tmp_path / out
            with pytest.raises(SystemExit) as stop:
                run("export", "--format", format, "--out", str(path), *map(str, words))
            assert stop.value.code == 1
            error = capsys.readouterr().err
            assert len(error.strip().splitlines()) == 1
            assert re.search(match, error)
            assert not list(tmp_path.glob("a.*"))

        return call

    def test_a_checkpoint_that_is_not_there(self, refused):
        refused("error: no.ckpt: no such checkpoint", "--ckpt_path", "no.ckpt")

    def test_a_checkpoint_that_would_execute_code(self, refused, tmp_path):
        class Hostile:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "executed",))

        path = tmp_path / "hostile.ckpt"
        torch.save({"state_dict": Hostile()}, path)
        refused("hostile.ckpt: refused, .* would execute code", "--ckpt_path", path, *SIZE)
        assert not (tmp_path / "executed").exists()

    def test_another_methods_options(self, refused, checkpoint, tmp_path):
        other = torch.load(checkpoint, weights_only=True)
        other["hyper_parameters"]["temperature"] = 0.1
        torch.save(other, tmp_path / "other.ckpt")
        match = r"error: .*other.ckpt: PPLRModule has no option temperature"
        refused(match, "--ckpt_path", tmp_path / "other.ckpt", *SIZE)

    def test_an_unknown_method(self, refused, checkpoint, tmp_path):
        other = torch.load(checkpoint, weights_only=True)
        torch.save({**other, "method": "Other"}, tmp_path / "other.ckpt")
        match = r"error: .*other.ckpt: the model is a Other, which is no ReIDModule that is import"
        refused(match, "--ckpt_path", tmp_path / "other.ckpt", *SIZE)

    @pytest.mark.parametrize("key", ["hyper_parameters", "network"])
    def test_a_checkpoint_without_options(self, refused, checkpoint, tmp_path, key):
        other = torch.load(checkpoint, weights_only=True)
        del other[key]
        torch.save(other, tmp_path / "none.ckpt")
        match = rf"error: .*none.ckpt: a checkpoint without '{key}'"
        refused(match, "--ckpt_path", tmp_path / "none.ckpt", *SIZE)

    def test_an_image_size_that_is_none(self, refused, checkpoint):
        match = r"--image_size=\(0, 32\): give \(height, width\) in pixels"
        refused(match, "--ckpt_path", checkpoint, "--image_size", 0, 32)

    def test_another_ending(self, refused):
        match = r"a.onnx: a file of format torch is named \*.pt2"
        refused(match, "--ckpt_path", "no.ckpt", out="a.onnx")

    def test_a_folder(self, run, tmp_path, capsys):
        out = tmp_path / "a.pt2"
        out.mkdir()
        with pytest.raises(SystemExit) as stop:
            run("export", "--format=torch", f"--out={out}", "--ckpt_path=no.ckpt")
        assert stop.value.code == 1
        error = capsys.readouterr().err
        assert error == f"error: {out}: is a folder; give the name of a file in it\n"

    def test_a_difference_above_tolerance(self, refused, checkpoint, monkeypatch):
        monkeypatch.setattr(exporter, "TOLERANCE", -1.0)
        match = r"a.pt2: not written, because its features differ from the network's by"
        refused(match, "--ckpt_path", checkpoint, *SIZE)


@pytest.mark.parametrize("which", ["neck.weight", "neck.running_mean", "part_necks.0.bias"])
def test_weights_that_are_not_finite(run, tmp_path, capsys, which):
    broken = module()
    with torch.no_grad():
        broken.network.state_dict()[which][0] = torch.nan
    path, out = save(broken, tmp_path / "nan.ckpt"), tmp_path / "a.pt2"
    with pytest.raises(SystemExit) as stop:
        run("export", f"--ckpt_path={path}", "--format=torch", f"--out={out}")
    assert stop.value.code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {out}: not written, because the weights of {which} are not")
    assert not out.exists()
