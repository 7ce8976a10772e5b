from __future__ import annotations

import os

import pytest
import torch

from pplr_lightning import PPLRModule
from pplr_lightning import functional as F
from pplr_lightning.data import MarketLayout
from pplr_lightning.data.images import read_image
from pplr_lightning.data.transforms import EvalTransform

from ..other_projects import PPLR, Contrast, wrapped


@pytest.fixture(scope="module")
def authors():
    torch.manual_seed(0)
    return PPLR(depth=18, rows=20).eval()


@pytest.fixture(scope="module")
def best(authors, tmp_path_factory):
    path = tmp_path_factory.mktemp("authors") / "best.pth"
    torch.save(wrapped(authors), path)
    return path


@pytest.fixture(scope="module")
def spcl(tmp_path_factory):
    path = tmp_path_factory.mktemp("spcl") / "model_best.pth.tar"
    torch.save({"state_dict": wrapped(Contrast()), "epoch": 50}, path)
    return path


RESNET18 = "--backbone=resnet18.tv_in1k"


def as_published(run_args: list[str]) -> list[str]:
    """The options of a run, with the model that the weights are of."""
    return [
        *[option for option in run_args if "--model.max_clusters" not in option],
        "--model.network.backbone=resnet18.tv_in1k",
        "--model.network.num_parts=3",
    ]


@torch.no_grad()
def score(authors, drawn) -> dict[str, float]:
    """Evaluates query and gallery with the authors' own model."""
    splits, transform = MarketLayout(drawn).load(), EvalTransform((64, 32))
    query, gallery = (
        authors(torch.stack([transform(read_image(sample.path)) for sample in samples]))[0]
        for samples in (splits.query, splits.gallery)
    )
    ids = [
        torch.tensor([getattr(sample, name) for sample in samples])
        for name in ("person_id", "camera_id")
        for samples in (splits.query, splits.gallery)
    ]
    return F.retrieval_metrics(2 - 2 * query @ gallery.T, *ids)


def test_there_is_tested_and_back_is_the_same(
    run, run_args, authors, best, drawn, tmp_path, capsys
):
    output = tmp_path / "own/new.ckpt"
    assert run("convert", str(best), str(output), RESNET18) == output
    assert "of this library, for --ckpt_path and network.weights" in capsys.readouterr().out
    options = [*as_published(run_args), "--model.max_clusters=20"]
    converted = run("test", *options, f"--ckpt_path={output}")
    given = run("test", *options, f"--model.network.weights={best}")
    expected = score(authors, drawn)
    for cli in (converted, given):
        found = cli.trainer.callback_metrics
        assert found["test/mAP"].item() == pytest.approx(expected["mAP"], abs=1e-6)
        assert found["test/rank-1"].item() == pytest.approx(expected["rank-1"], abs=1e-6)

    run("convert", str(output), str(tmp_path / "back.pth"))
    assert "in the layout of PPLR's authors" in capsys.readouterr().out
    there = torch.load(best, weights_only=True)
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert list(back) == list(there)
    assert all(torch.equal(back[name], tensor) for name, tensor in there.items())
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["back.pth"]


def test_global_branch_alone_is_a_checkpoint_to_predict_and_start_from(
    run, run_args, spcl, tmp_path
):
    output = tmp_path / "new.ckpt"
    run("convert", str(spcl), str(output), RESNET18)
    module = PPLRModule.load_from_checkpoint(output)
    assert module.network.backbone_name == "resnet18.tv_in1k"
    options = as_published(run_args)
    cli = run("predict", *options, "--model.max_clusters=3000", f"--ckpt_path={output}")
    start = run(
        "validate", *options, f"--model.network.weights={output}", "--model.max_clusters=64"
    )
    neck = torch.load(spcl, weights_only=True)["state_dict"]["module.feat_bn.running_mean"]
    for module in (cli.model, start.model):
        assert torch.equal(module.network.neck.running_mean, neck)
        assert torch.equal(module.network.part_necks[2].running_mean, neck)


class TestRefused:
    def refusal(self, run, capsys, *args) -> str:
        with pytest.raises(SystemExit) as stop:
            run("convert", *map(str, args))
        assert stop.value.code == 1
        return capsys.readouterr().err.strip().splitlines()[-1]

    def test_input(self, run, capsys, tmp_path):
        output = tmp_path / "new.ckpt"
        assert "nowhere.pth: no such" in self.refusal(run, capsys, tmp_path / "nowhere.pth", output)
        (tmp_path / "odd.pth").write_bytes(b"text")
        error = self.refusal(run, capsys, tmp_path / "odd.pth", output)
        assert error.startswith(f"error: {tmp_path / 'odd.pth'}: no readable checkpoint")
        torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "odd.pth")
        error = self.refusal(run, capsys, tmp_path / "odd.pth", output)
        assert "no weights of this library, of PPLR's authors" in error
        assert not output.exists()

    def test_another_backbone(self, run, capsys, spcl, tmp_path):
        error = self.refusal(
            run, capsys, spcl, tmp_path / "new.ckpt", "--backbone=resnet34.tv_in1k"
        )
        assert "set backbone (resnet34.tv_in1k) to the one" in error
        assert not (tmp_path / "new.ckpt").exists()

    def test_output_that_is_there(self, run, capsys, best):
        before = os.stat(best)
        assert f"{best} is there already" in self.refusal(run, capsys, best, best)
        assert os.stat(best) == before

    def test_output_that_cannot_be_written(self, run, capsys, spcl, tmp_path):
        (tmp_path / "file").touch()
        error = self.refusal(run, capsys, spcl, tmp_path / "file/new.ckpt", RESNET18)
        assert f"{tmp_path / 'file/new.ckpt'}: cannot be written" in error

    def test_weights_that_cannot_be_read_before_any_work(self, run, run_args, capsys, tmp_path):
        (tmp_path / "odd.pth").write_bytes(b"text")
        with pytest.raises(SystemExit):
            run("fit", *run_args, f"--model.network.weights={tmp_path / 'odd.pth'}",
                "--data.dataset.init_args.root=nowhere")  # fmt: skip
        assert "odd.pth: no readable checkpoint" in capsys.readouterr().err

    def test_weights_of_no_known_layout_before_any_work(self, run, run_args, capsys, tmp_path):
        torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "odd.pth")
        with pytest.raises(SystemExit):
            run("fit", *run_args, f"--model.network.weights={tmp_path / 'odd.pth'}",
                "--data.dataset.init_args.root=nowhere")  # fmt: skip
        error = capsys.readouterr().err
        assert "odd.pth: none of its 1 tensors has a name of the backbone's" in error

    def test_published_checkpoint_as_ckpt_path(self, run, run_args, capsys, spcl):
        with pytest.raises(SystemExit):
            run("test", *run_args, f"--ckpt_path={spcl}")
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert "can be given as network.weights" in error
        assert "python -m pplr_lightning convert" in error
