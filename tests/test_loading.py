from __future__ import annotations

import os

import pytest
import torch

from pplr_lightning import PPLRModule, SimCLRModule
from pplr_lightning.loading import load_module
from pplr_lightning.recipe import checksum

from .tiny import module, save


def test_builds_what_the_checkpoint_says(tiny_checkpoint):
    found = load_module(tiny_checkpoint)
    expected = module()
    assert isinstance(found, PPLRModule)
    assert found.model.num_parts == 2
    assert found.preprocessing == expected.preprocessing
    assert checksum(found.model) == checksum(expected.model)


def test_of_a_run_of_the_command_line(trained):
    found = load_module(trained / "checkpoints/last.ckpt")
    assert found.preprocessing.image_size == (64, 32)
    assert found.model.max_clusters == 64


def test_of_simclr(tmp_path):
    pytest.importorskip("pytorch_metric_learning")
    made = SimCLRModule("test_resnet", projection_size=8)
    found = load_module(save(made, tmp_path / "simclr.ckpt"))
    assert isinstance(found, SimCLRModule)
    assert torch.equal(found.projector[2].weight, made.projector[2].weight)
    assert found.preprocessing is None


class _Malicious:
    def __reduce__(self):
        return os.system, ("touch executed",)


def change(path, folder, **content):
    changed = folder / "changed.ckpt"
    torch.save({**torch.load(path, weights_only=True), **content}, changed)
    return changed


def test_lightnings_way_imports_nothing_that_the_checkpoint_names(
    tiny_checkpoint, tmp_path, monkeypatch
):
    (tmp_path / "evil.py").write_text("open(__file__ + '.imported', 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    options = torch.load(tiny_checkpoint, weights_only=True)["hyper_parameters"]
    named = {**options, "_instantiator": "evil.make"}
    changed = change(tiny_checkpoint, tmp_path, hyper_parameters=named)
    with pytest.raises(Exception, match="not in the allowlist"):
        PPLRModule.load_from_checkpoint(changed, weights_only=True)
    assert not (tmp_path / "evil.py.imported").exists()
    assert isinstance(load_module(changed), PPLRModule)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"extra": _Malicious()}, "changed.ckpt: refused, the file holds objects that would exec"),
        ({"hyper_parameters": {"backbone": "resnet5O"}}, "changed.ckpt: backbone 'resnet5O' is no"),
        ({"hyper_parameters": {"new_option": 1}}, "changed.ckpt: .*'new_option'"),
        ({"hyper_parameters": {"backbone": "test_resnet", "num_parts": 3}}, "does not fit the mod"),
    ],
)
def test_what_cannot_be_built(tiny_checkpoint, tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_module(change(tiny_checkpoint, tmp_path, **content))
    assert not (tmp_path / "executed").exists()


def test_calls_nothing_that_the_file_names(tiny_checkpoint, tmp_path):
    options = torch.load(tiny_checkpoint, weights_only=True)["hyper_parameters"]
    path = change(
        tiny_checkpoint, tmp_path, hyper_parameters={**options, "_instantiator": "os.system"}
    )
    assert isinstance(load_module(path), PPLRModule)
