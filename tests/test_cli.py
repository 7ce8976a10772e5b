from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from pplr_lightning import commands
from pplr_lightning.cli import COMMANDS, LIGHTNING_COMMANDS
from pplr_lightning.gallery.embeddings import read_embeddings

NAMES = {
    "train/loss", "train/loss_pglr", "train/loss_parts", "train/loss_triplet",
    "labels/clusters", "labels/outliers", "labels/agreement_mean",
    "labels/agreement_part1", "labels/agreement_part2",
    "labels/ari", "labels/precision", "labels/recall",
    "val/mAP", "val/mINP", "val/rank-1", "val/rank-5", "val/rank-10",
}  # fmt: skip


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def column(folder: Path, name: str) -> list[float]:
    return [float(row[name]) for row in rows(folder) if row.get(name)]


class TestFit:
    def test_writes_log_config_summary_and_checkpoint(
        self, run, run_args, checkpoint_args, tmp_path, capsys, caplog
    ):
        run("fit", *run_args, *checkpoint_args)
        folder = tmp_path / "demo/version_0"
        assert set(rows(folder)[0]) >= NAMES
        assert len(column(folder, "train/loss")) == 6
        assert len(column(folder, "labels/clusters")) == 2
        assert len(column(folder, "val/mAP")) == 3  # before training, too
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["last"]["mAP"] == pytest.approx(column(folder, "val/mAP")[-1], abs=1e-6)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["pseudo_labels"]["labeler"]["init_args"]["k1"] == 6
        assert "first (before training)" in capsys.readouterr().out
        assert re.search(r"PPLRModule of 0\.\d million parameters", caplog.text)

        checkpoint = folder / "checkpoints/last.ckpt"
        content = torch.load(checkpoint, weights_only=True)  # tensors and plain values only
        assert content["epoch"] == 1

        # The checkpoint serves the other subcommands, and a second run in the same folder works.
        cli = run("validate", *run_args, f"--ckpt_path={checkpoint}")
        assert cli.trainer.callback_metrics["val/mAP"].item() == pytest.approx(
            summary["last"]["mAP"], abs=1e-6
        )
        cli = run("test", *run_args, f"--ckpt_path={checkpoint}")
        assert cli.trainer.callback_metrics["test/mAP"].item() == pytest.approx(
            summary["last"]["mAP"], abs=1e-6
        )

        cli = run("fit", *run_args, f"--model.network.weights={checkpoint}")
        first = json.loads(Path(cli.trainer.log_dir, "summary.json").read_text())["first"]
        assert first["mAP"] == pytest.approx(summary["last"]["mAP"], abs=1e-6)

    def test_resumes_with_fresh_labels(self, run, run_args, checkpoint_args, tmp_path):
        run("fit", *run_args, *checkpoint_args, "--trainer.max_epochs=1")
        checkpoint = tmp_path / "demo/version_0/checkpoints/last.ckpt"
        run("fit", *run_args, f"--ckpt_path={checkpoint}")
        run("fit", *run_args)
        resumed, whole = (tmp_path / f"demo/version_{v}" for v in (1, 2))
        assert column(resumed, "labels/clusters") == column(whole, "labels/clusters")[1:]
        assert column(resumed, "train/loss") == column(whole, "train/loss")[3:]
        assert column(resumed, "val/mAP") == column(whole, "val/mAP")[2:]

    def test_the_same_seed_gives_the_same_run(self, run, run_args, tmp_path):
        for seed in (3, 3, 4):
            run("fit", *run_args, f"--seed_everything={seed}", "--trainer.max_epochs=1")
        first, second, third = (
            column(tmp_path / f"demo/version_{v}", "train/loss") for v in range(3)
        )
        assert first == second
        assert first != third

    def test_plain_folder_without_ids(self, run, run_args, drawn, tmp_path):
        folder = tmp_path / "crops/some place"
        folder.mkdir(parents=True)
        for number, path in enumerate(sorted((drawn / "bounding_box_train").iterdir())):
            Image.open(path).save(folder / f"{number}.JPG")
        run(
            "fit",
            *run_args,
            "--data.dataset=pplr_lightning.data.ImageFolder",
            f"--data.dataset.init_args.root={tmp_path / 'crops'}",
        )
        logged = rows(tmp_path / "demo/version_0")
        assert len(column(tmp_path / "demo/version_0", "train/loss")) == 6
        assert not any(name.startswith("val/") or name == "labels/ari" for name in logged[0])

    def test_interpolation_follows_the_command_line(self, run, run_args, tmp_path):
        extra = tmp_path / "extra.yaml"
        extra.write_text("data:\n  eval_batch_size: ${.iterations}\n")
        cli = run("fit", *run_args, f"--config={extra}", "--data.iterations=5",
                  "--trainer.fast_dev_run=1")  # fmt: skip
        assert cli.datamodule.eval_batch_size == 5

    def test_weights_and_biases_offline(self, run, run_args, checkpoint_args, tmp_path):
        cli = run(
            "fit",
            *[option for option in run_args if "trainer.logger" not in option],
            *checkpoint_args,
            "--trainer.logger=WandbLogger",
            "--trainer.logger.offline=true",
            f"--trainer.logger.save_dir={tmp_path}",
            "--trainer.logger.project=reid",
            "--trainer.max_epochs=1",
        )
        logger = cli.trainer.logger
        folder = tmp_path / "reid" / logger.version
        assert (folder / "summary.json").is_file()
        assert (folder / "checkpoints/last.ckpt").is_file()
        assert dict(logger.experiment.summary).keys() >= NAMES
        logger.experiment.finish()

    def test_goes_on_in_the_middle_of_an_epoch(self, run, run_args, tmp_path):
        run(
            "fit",
            *run_args,
            "--trainer.max_steps=4",
            "--trainer.callbacks+=ModelCheckpoint",
            "--trainer.callbacks.every_n_train_steps=4",
            "--trainer.callbacks.filename=middle",
        )
        middle = tmp_path / "demo/version_0/checkpoints/middle.ckpt"
        cli = run("fit", *run_args, f"--ckpt_path={middle}")
        assert cli.trainer.current_epoch == 2

    def test_mixed_precision(self, run, run_args, tmp_path):
        run("fit", *run_args, "--trainer.precision=bf16-mixed", "--trainer.max_epochs=1")
        losses = column(tmp_path / "demo/version_0", "train/loss")
        assert len(losses) == 3
        assert all(0 < loss < 100 for loss in losses)


def test_predict_with_a_config_embeds_its_data_set(run, run_args, tmp_path, drawn):
    run("predict", *run_args)
    saved = read_embeddings(tmp_path / "demo/version_0/embeddings.parquet")
    queries = [str(path) for path in sorted(drawn.glob("query/*"))]
    images = len(queries) + len(list(drawn.glob("bounding_box_test/*.png")))
    assert saved.vectors.shape == (images, 96)
    assert sum(len(chunk) for chunk in saved.chunks()) == images  # and checks that they have norm 1
    paths = saved.items["path"].to_pylist()
    assert paths[: len(queries)] == queries
    assert len(set(paths)) == images
    assert saved.fingerprint.preprocessing.image_size == (64, 32)


def test_predict_with_a_config_and_a_name_that_is_not_utf8(run, run_args, tmp_path, drawn, capsys):
    (tmp_path / "crops").mkdir()
    picture = next(drawn.glob("query/*")).read_bytes()
    with open(os.fsencode(tmp_path) + b"/crops/caf\xe9.png", "wb") as file:
        file.write(picture)
    folder = f"--data.dataset.init_args.root={tmp_path / 'crops'}"
    with pytest.raises(SystemExit):
        run("predict", *run_args, "--data.dataset=pplr_lightning.data.ImageFolder", folder)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: '{tmp_path}/crops/caf\\udce9.png': the name is not UTF-8")


def test_predict_with_a_config_gives_the_features_that_are_tested(run, run_args, tmp_path):
    run("predict", *run_args, "--evaluation.test_features=both")
    saved = read_embeddings(tmp_path / "demo/version_0/embeddings.parquet")
    assert saved.fingerprint.features == "both"
    assert saved.vectors.shape[1] == 3 * 96


def damage(drawn: Path, tmp_path: Path) -> list[str]:
    folder = tmp_path / "crops"
    folder.mkdir()
    for path in sorted((drawn / "bounding_box_train").iterdir()):
        (folder / path.name).write_bytes(path.read_bytes())
    cut = next(folder.iterdir())
    cut.write_bytes(cut.read_bytes()[:200])
    return [
        "--data.dataset=pplr_lightning.data.ImageFolder",
        f"--data.dataset.init_args.root={folder}",
    ]


class TestOverview:
    """Every command is in the help, and a mistyped one is answered with all of them."""

    def test_help(self, run, capsys):
        with pytest.raises(SystemExit) as stop:
            run("--help")
        assert stop.value.code == 0
        printed = capsys.readouterr().out
        files = {file.stem for file in Path(commands.__file__).parent.glob("[!_]*.py")}
        helpers = {"all_splits", "training", "parser", "config_files", "environment_values"}
        assert files == {*COMMANDS, *helpers}
        for name in (*LIGHTNING_COMMANDS, *COMMANDS):
            assert f"\n    {name} " in printed

    @pytest.mark.parametrize(
        ("words", "message"),
        [(["serach", "--index", "x"], r"invalid choice: 'serach' .*search"), ([], r"COMMAND$")],
    )
    def test_no_command(self, run, capsys, words, message):
        with pytest.raises(SystemExit) as stop:
            run(*words)
        assert stop.value.code == 2
        assert re.search(message, capsys.readouterr().err.strip().splitlines()[-1])

    def test_options_before_the_command(self, run, capsys):
        with pytest.raises(SystemExit) as stop:
            run("--config=nowhere.yaml", "fit")
        assert stop.value.code == 2
        assert "nowhere.yaml" in capsys.readouterr().err


class TestBadInput:
    """Each ends with one line on stderr and exit code 1 before training starts."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--data.dataset.init_args.root=nowhere"], "nowhere/bounding_box_train: no such"),
            (["--model.network.backbone=resnet5O"], "'resnet5O' is no timm model; did you mean"),
            (["--data.batch_size=30"], "batch_size=30 does not divide"),
            (["--pseudo_labels.labeler.k1=5000"], "k1=5000"),
            (["--model.network.weights=nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
            (["--model.network.weights=nowhere.pth"], "nowhere.pth: no such checkpoint"),
            (["--ckpt_path=nowhere.ckpt"], "nowhere.ckpt"),
            (["--pseudo_labels.labeler.eps=2"], "eps=2"),
            (["--data.num_workers=-1"], "data.num_workers must be at least 0, got -1"),
            (["--model.max_clusters=1"], "model.max_clusters must be at least 2, got 1"),
            (["--seed_everything=-1"], "seed_everything=-1: must lie in [0, 4294967295]"),
            (["--data.batch_size=20"], "norm_batch_size=8"),
            (["--trainer.devices=0"], "`Trainer(devices='0')` value is not a valid input"),
            (["--trainer.accumulate_grad_batches=2"], "accumulate_grad_batches=2: the losses"),
            (
                [
                    "--trainer.callbacks+=GradientAccumulationScheduler",
                    "--trainer.callbacks.scheduling={0: 1, 3: 4}",
                ],
                "accumulate_grad_batches=4: the losses",
            ),
            (["--trainer.check_val_every_n_epoch=-1"], "n_epoch=-1: must be at least 1"),
            (["--trainer.gradient_clip_val=-1"], "gradient_clip_val=-1: must be at least 0"),
            (["--evaluation.topk=[1,1]"], "topk=(1, 1): give ranks of 1 or more, each once"),
            (["--trainer.devices=-3"], "`devices` selected with `CPUAccelerator` should be an int"),
            (["--trainer.accelerator=foo"], "invalid accelerator name: `accelerator='foo'`"),
            (["--trainer.strategy=foo"], "invalid strategy name: `strategy='foo'`"),
            (["--trainer.num_nodes=0"], "`num_nodes` must be a positive integer, but got 0"),
            (
                ["--trainer.val_check_interval=1000"],
                "val_check_interval=1000: an epoch has 3",
            ),
            (["--trainer.precision=bf16-true"], "precision=bf16-true: the losses compare cosines"),
            (["--trainer.precision=16-true"], "use bf16-mixed (or 16-mixed)"),
            (["--data.eval_batch_size=${data.nothing}"], "eval_batch_size: Interpolation key"),
            (["--data.eval_batch_size=${oc.env:NO_SUCH_VARIABLE}"], "eval_batch_size: KeyError"),
            (["--data.eval_batch_size=${.eval_batch_size}"], "eval_batch_size: Recursive"),
            (["--trainer.logger.init_args.save_dir=/proc/nowhere"], "'/proc/nowhere'"),
            (["--trainer.devices=100"], "trainer.devices=100: at most "),
            (["--model.beta=null"], "error: model.beta: null is no value of it; leave it out, or"),
            (["--model.network.channels_last=null"], "error: model.network.channels_last: null is"),
            (["--pseudo_labels.labeler.eps=null"], "error: pseudo_labels.labeler.eps: null is no"),
            (["--optimizer=Adam", "--optimizer.lr=null"], "error: optimizer.lr: null is no value"),
            ([f"--trainer.devices={10**20}"], f"trainer.devices={10**20}: must be at most 1,000,"),
            ([f"--trainer.num_nodes={10**20}"], f"trainer.num_nodes={10**20}: must be at most 1"),
            ([f"--data.iterations={10**20}"], "data.iterations must be at most 1,000,000,000, got"),
            ([f"--data.eval_batch_size={10**20}"], "data.eval_batch_size must be at most 1,000,"),
            (["--data.num_workers=1000000"], "data.num_workers must be at most 256, got 1000000"),
            (["--data.image_size=[1000000,64]"], "data.image_size=(1000000, 64): give (height, w"),
            (["--data.image_size=[0,0]"], "data.image_size=(0, 0): give (height, width) in p"),
            (["--data.padding=1000000"], "data.padding must be at most 64, got 1000000"),
            (["--data.views=1000000"], "data.views must be at most 64, got 1000000"),
            (["--model.max_clusters=1000000000"], "model.max_clusters must be at most 1,000,000,"),
            pytest.param(
                ["--pseudo_labels.backend=faiss-gpu"],
                "no GPU",
                marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
            ),
        ],
    )
    def test_one_line(self, run, run_args, capsys, tmp_path, options, message):
        with pytest.raises(SystemExit) as stop:
            run("fit", *run_args, *options)
        assert stop.value.code not in (0, None)
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        assert message in error
        assert not list(tmp_path.rglob("metrics.csv"))

    def test_cut_off_image(self, run, run_args, drawn, tmp_path, capsys):
        with pytest.raises(SystemExit):
            run("fit", *run_args, *damage(drawn, tmp_path))
        assert "cannot be read as an image" in capsys.readouterr().err.splitlines()[-1]

    def test_cut_off_image_skipped(self, run, run_args, drawn, tmp_path):
        with pytest.warns(UserWarning, match="1 unreadable images are left out"):
            run(
                "fit",
                *run_args,
                *damage(drawn, tmp_path),
                "--data.bad_images=skip",
                "--trainer.max_epochs=1",
            )

    def test_no_cluster_while_training(self, run, run_args, capsys):
        with pytest.raises(SystemExit):
            run("fit", *run_args, "--pseudo_labels.labeler.min_samples=90")
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: no class in")
        assert "eps" in error

    def test_errors_that_are_not_ours_keep_their_traceback(self, run, run_args, monkeypatch):
        monkeypatch.setattr("torch.optim.Adam.step", lambda *_, **__: [][0])
        with pytest.raises(IndexError):
            run("fit", *run_args)
