"""What goes wrong in a run ends it in good time, with a message and a whole checkpoint."""

from __future__ import annotations

import resource
import shutil
import time

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from pplr_lightning.cli import main

from .conftest import CHECKPOINT, run_options

TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")
SECONDS = 120  # in which a job is gone after one of its ranks failed; another waits for ever


def fault(name: str, **options) -> list[str]:
    return [f"--trainer.callbacks+=tests.faults.{name}"] + [
        f"--trainer.callbacks.{key}={value}" for key, value in options.items()
    ]


def last_line(done) -> str:
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def finished(drawn, tmp_path_factory):
    """The checkpoint of a run of one epoch."""
    folder = tmp_path_factory.mktemp("finished")
    main(["fit", *run_options(drawn, folder), *CHECKPOINT, "--trainer.max_epochs=1"])
    return folder / "demo/version_0/checkpoints/last.ckpt"


class TestRanks:
    @pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
    def test_one_that_raises_ends_the_job(self, run_launcher, run_args, tmp_path, rank):
        happened = tmp_path / "happened"
        done = run_launcher(
            "fit", *run_args, *TWO, *fault("Raises", step=1, rank=rank, file=happened)
        )
        assert time.time() - happened.stat().st_mtime < SECONDS
        assert done.returncode != 0
        assert f"LookupError: the fault of rank {rank}" in done.stderr

    @pytest.mark.slow
    @pytest.mark.parametrize("rank", [0, 1])
    @pytest.mark.parametrize(
        "place", ["reading", "extraction", "labels", "loss", "averaged", "killed"]
    )
    def test_a_fault_in_any_place_ends_both(self, run_process, run_args, tmp_path, place, rank):
        happened = tmp_path / "happened"
        words = fault("RaisesIn", place=place, file=happened, rank=rank)
        done = run_process("fit", *run_args, *TWO, *words)
        assert time.time() - happened.stat().st_mtime < 30
        assert done.returncode != 0
        if place != "killed":
            assert done.stderr.count(f"LookupError: the fault of rank {rank}") >= 1

    @pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
    def test_sigterm_to_any_of_them_ends_all_with_a_checkpoint(
        self, run_process, run_args, tmp_path, rank
    ):
        done = run_process("fit", *run_args, *TWO, *fault("Terminates", step=1, rank=rank))
        assert done.returncode == 143, done.stderr
        checkpoint = tmp_path / "demo/version_0/checkpoints/interrupted.ckpt"
        assert torch.load(checkpoint, weights_only=True)["global_step"] == 2
        assert last_line(done).startswith("python -m pplr_lightning fit --config=")
        assert last_line(done).endswith(f"--ckpt_path={checkpoint}")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--pseudo_labels.labeler=tests.faults.Unable"], "the labeler of rank 1 cannot"),
            (["--data.dataset=tests.faults.Unprepared"], "the set cannot be written"),
            (["--data.dataset=tests.faults.Unequal"], "process 1 finds other images than process"),
            (
                ["--data.dataset=tests.faults.Unequal", "--data.dataset.everything=true"],
                "[Errno 2] No such file or directory: '",
            ),
        ],
    )
    def test_what_one_finds_before_work_ends_all_with_one_message(
        self, run_several, run_args, drawn, options, message
    ):
        root = [f"--data.dataset.root={drawn}"] if "data.dataset" in options[0] else []
        began = time.monotonic()
        done = run_several(2, "fit", *run_args, *TWO, *options, *root, timeout=60)
        assert time.monotonic() - began < 45
        assert done.returncode == 1, done.stderr
        (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
        assert error.startswith(f"error: {message}")
        assert "Traceback" not in done.stderr


class TestNotFinite:
    def test_names_epoch_step_and_part_and_keeps_the_last_good_checkpoint(
        self, run, run_args, checkpoint_args, tmp_path, capsys
    ):
        with pytest.raises(SystemExit) as stop:
            run("fit", *run_args, *checkpoint_args, *fault("Poisons", step=4))
        assert stop.value.code == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        checkpoint = tmp_path / "demo/version_0/checkpoints/last.ckpt"
        assert error.startswith("error: epoch 1, step 4: ")
        assert "train/loss_triplet is nan" in error
        assert str(checkpoint) in error
        weights = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert all(w.isfinite().all() for w in weights.values() if isinstance(w, torch.Tensor))

    def test_on_one_rank_stops_all(self, run_launcher, run_args):
        done = run_launcher("fit", *run_args, *TWO, *fault("Poisons", step=1, rank=1))
        assert done.returncode != 0
        assert "error: epoch 0, step 1: train/loss is nan, train/loss_" in done.stderr

    @pytest.mark.parametrize("rank", [0, 1])
    def test_a_gradient_of_one_rank_stops_all_with_one_message(self, run_several, run_args, rank):
        """After the ranks' gradients are averaged, of which nobody else hears."""
        broken = fault("BreaksGradient", step=1, rank=rank)
        done = run_several(2, "fit", *run_args, *TWO, *broken, timeout=90)
        assert done.returncode == 1
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert errors[0].startswith(
            "error: epoch 0, step 1: the loss is finite, its gradient is not; lower optimizer.lr"
        )


class TestDisk:
    def test_full(self, run, run_args, finished, capsys, monkeypatch):
        before = finished.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        # a file may grow no further than half a checkpoint
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        try:
            with pytest.raises(SystemExit) as stop:
                run("fit", *run_args, f"--ckpt_path={finished}", *saving_into(finished.parent))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert stop.value.code == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith(f"error: {finished}: cannot be written (File too")
        assert finished.read_bytes() == before
        assert list(finished.parent.iterdir()) == [finished]

    def test_a_folder_that_cannot_be_written_to(self, run, run_args, tmp_path, capsys):
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(SystemExit) as stop:
            run("fit", *run_args, f"--trainer.logger.init_args.save_dir={tmp_path / 'file'}")
        assert stop.value.code == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        assert str(tmp_path / "file") in error


def saving_into(folder) -> list[str]:
    return [
        "--trainer.callbacks+=ModelCheckpoint",
        f"--trainer.callbacks.dirpath={folder}",
        "--trainer.callbacks.filename=last",
        "--trainer.callbacks.save_on_train_epoch_end=true",
        "--trainer.callbacks.enable_version_counter=false",
    ]


class TestOtherCheckpoints:
    def refusal(self, run, run_args, capsys, path, *options) -> str:
        with pytest.raises(SystemExit) as stop:
            run("fit", *run_args, f"--ckpt_path={path}", *options)
        assert stop.value.code == 1
        return capsys.readouterr().err.strip().splitlines()[-1]

    def test_one_that_would_execute_code(self, run, run_args, capsys, tmp_path):
        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "executed"), "w"))

        path = tmp_path / "evil.ckpt"
        torch.save({"state_dict": {}, "loops": {}, "pytorch-lightning_version": Evil()}, path)
        assert "evil.ckpt: refused, the file holds objects" in self.refusal(
            run, run_args, capsys, path
        )
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize("content", [b"", b"text", {"weights": 1}, [1, 2]])
    def test_none_at_all(self, run, run_args, capsys, tmp_path, content):
        path = tmp_path / "odd.ckpt"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        error = self.refusal(run, run_args, capsys, path)
        assert "odd.ckpt: no " in error
        assert "checkpoint" in error

    def test_of_another_library(self, run, run_args, capsys, tmp_path):
        trainer = Trainer(
            accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(BoringModel())
        trainer.save_checkpoint(tmp_path / "boring.ckpt")
        error = self.refusal(run, run_args, capsys, tmp_path / "boring.ckpt")
        assert (
            "does not fit the model: classifier.weight is missing in the checkpoint, (64, 96) here"
            in error
        )

    def test_of_another_shape(self, run, run_args, capsys, finished):
        error = self.refusal(run, run_args, capsys, finished, "--model.max_clusters=65")
        assert "classifier.weight is (64, 96) in the checkpoint, (65, 96) here" in error
        assert "2 more like it" in error

    def test_of_other_data(self, run, run_args, capsys, finished, drawn, tmp_path):
        shutil.copytree(drawn, tmp_path / "fewer")
        next((tmp_path / "fewer/bounding_box_train").iterdir()).unlink()
        options = f"--data.dataset.init_args.root={tmp_path / 'fewer'}"
        error = self.refusal(run, run_args, capsys, finished, options)
        assert "on 96 training images, here are 95" in error

    def test_of_another_optimiser(self, run, run_args, capsys, finished):
        other = ["--optimizer=SGD", "--optimizer.lr=0.1"]
        error = self.refusal(run, run_args, capsys, finished, *other)
        assert "the checkpoint's optimiser is not SGD as it is set here" in error

    @pytest.mark.parametrize("field", ["loops", "optimizer_states", "epoch"])
    def test_with_a_damaged_field(self, run, run_args, capsys, finished, tmp_path, field):
        torch.save({**torch.load(finished, weights_only=True), field: {}}, tmp_path / "odd.ckpt")
        error = self.refusal(run, run_args, capsys, tmp_path / "odd.ckpt")
        assert f"{tmp_path / 'odd.ckpt'}: a damaged checkpoint, " in error

    def test_weights_alone(self, run, run_args, capsys, finished, tmp_path):
        checkpoint = torch.load(finished, weights_only=True)
        del checkpoint["optimizer_states"]
        torch.save(checkpoint, tmp_path / "weights.ckpt")
        error = self.refusal(run, run_args, capsys, tmp_path / "weights.ckpt")
        assert "weights alone" in error


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_vanish_are_named(run, run_args, drawn, tmp_path, capsys, workers):
    shutil.copytree(drawn, tmp_path / "set")
    folder = tmp_path / "set/bounding_box_train"
    with pytest.raises(SystemExit) as stop:
        run(
            "fit",
            *run_args,
            f"--data.dataset.init_args.root={tmp_path / 'set'}",
            f"--data.num_workers={workers}",
            "--data.cache=none",
            *fault("Removes", step=2, folder=folder),
        )
    assert stop.value.code == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: [Errno 2] No such file or directory: '{folder}/")
