from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from pplr_lightning.weights.backbone_weights import read_tensors
from pplr_lightning.weights.checkpoints import (
    WholeCheckpointIO,
    check_weights,
    newest_checkpoint,
    read_file,
    written_folders,
)


def touch(path, seconds: int):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (seconds, seconds))
    return path


class TestNewestCheckpoint:
    @pytest.fixture
    def trainer(self, tmp_path):
        logger = CSVLogger(tmp_path / "runs", name="mine")
        return Trainer(accelerator="cpu", logger=logger, default_root_dir=tmp_path)

    def test_of_the_runs_name_in_any_version(self, trainer, tmp_path):
        runs = tmp_path / "runs"
        touch(runs / "mine/version_0/checkpoints/last.ckpt", 10)
        newest = touch(runs / "mine/named/checkpoints/interrupted.ckpt", 30)
        touch(runs / "mine/version_2/checkpoints/last.ckpt", 20)
        touch(runs / "mine/version_2/checkpoints/last.ckpt.part", 50)  # of a run killed in writing
        touch(runs / "other/version_0/checkpoints/last.ckpt", 40)
        assert newest_checkpoint(trainer) == newest

    def test_below_the_folder_where_a_metrics_slash_puts_it(self, trainer, tmp_path):
        newest = touch(tmp_path / "runs/mine/version_0/checkpoints/epoch=1-val/mAP=0.1.ckpt", 10)
        assert newest_checkpoint(trainer) == newest

    def test_by_epoch_and_step_before_time(self, trainer, tmp_path):
        """A clock may be set back, and a copy is of now."""
        folder = tmp_path / "runs/mine/version_0/checkpoints"
        for epoch, step, seconds in ((1, 8, 30), (2, 9, 20), (2, 12, 10), (0, 4, 40)):
            state = {"epoch": epoch, "global_step": step, "pytorch-lightning_version": "2",
                     "state_dict": {}, "loops": {}}  # fmt: skip
            WholeCheckpointIO().save_checkpoint(state, folder / f"{step}.ckpt")
            os.utime(folder / f"{step}.ckpt", (seconds, seconds))
        touch(folder / "damaged.ckpt", 50)
        assert newest_checkpoint(trainer) == folder / "12.ckpt"

    def test_of_this_run_before_another_of_its_name(self, tmp_path):
        logger = CSVLogger(tmp_path, name="mine", version=1)
        trainer = Trainer(accelerator="cpu", logger=logger, default_root_dir=tmp_path)
        touch(tmp_path / "mine/version_0/checkpoints/last.ckpt", 30)
        own = touch(tmp_path / "mine/version_1/checkpoints/last.ckpt", 10)
        assert newest_checkpoint(trainer) == own

    def test_none(self, trainer):
        assert newest_checkpoint(trainer) is None

    def test_in_a_folder_of_its_own(self, tmp_path):
        saving = ModelCheckpoint(dirpath=tmp_path / "here")
        trainer = Trainer(accelerator="cpu", logger=False, callbacks=[saving])
        newest = touch(tmp_path / "here/epoch=1.ckpt", 10)
        assert newest_checkpoint(trainer) == newest


def test_what_lies_around_checkpoints_is_not_a_runs_own(tmp_path):
    saving = ModelCheckpoint(dirpath=tmp_path / "disk/here")
    logger = CSVLogger(tmp_path / "work/runs", name="mine", version=1)
    trainer = Trainer(
        accelerator="cpu", logger=logger, callbacks=[saving], default_root_dir=tmp_path / "work"
    )
    touch(tmp_path / "work/runs/mine/version_0/checkpoints/last.ckpt", 10)
    (tmp_path / "work/runs/mine/version_2").mkdir()  # killed before its first checkpoint
    (tmp_path / "work/runs/mine/photos").mkdir()
    runs = [tmp_path / f"work/runs/mine/version_{version}" for version in (0, 1)]
    assert sorted(written_folders(trainer)) == [
        tmp_path / "disk/here",
        tmp_path / "work/checkpoints",
        *(folder for run in runs for folder in (run, run / "checkpoints")),
        tmp_path / "work/runs/mine/version_2",
    ]


class TestWholeCheckpointIO:
    def test_takes_the_weights_that_a_launchers_process_hands_back(self, tmp_path):
        WholeCheckpointIO().save_checkpoint({"weight": torch.ones(2)}, tmp_path / ".temp.ckpt")
        assert list(WholeCheckpointIO().load_checkpoint(tmp_path / ".temp.ckpt")) == ["weight"]
        (tmp_path / ".temp.ckpt").rename(tmp_path / "other.ckpt")
        with pytest.raises(ValueError, match="no checkpoint of a run of this library"):
            WholeCheckpointIO().load_checkpoint(tmp_path / "other.ckpt")

    def test_replaces_what_was_there_and_leaves_nothing_else(self, tmp_path):
        for value in (1, 2):
            WholeCheckpointIO().save_checkpoint({"value": value}, tmp_path / "new/last.ckpt")
        assert torch.load(tmp_path / "new/last.ckpt", weights_only=True) == {"value": 2}
        assert len(list((tmp_path / "new").iterdir())) == 1

    def test_on_a_full_device(self, tmp_path, monkeypatch):
        path = tmp_path / "last.ckpt"
        WholeCheckpointIO().save_checkpoint({"value": 1}, path)
        full = Path("/dev/full")  # every write to it: no space left
        write = Path.write_bytes
        monkeypatch.setattr(Path, "write_bytes", lambda _, content: write(full, content))
        with pytest.raises(OSError, match=r"last.ckpt: cannot be written .*\(No space left"):
            WholeCheckpointIO().save_checkpoint({"value": 2}, path)
        assert torch.load(path, weights_only=True) == {"value": 1}
        assert list(tmp_path.iterdir()) == [path]


class TestReadFile:
    @pytest.mark.parametrize("numpy", [b"numpy._core", b"numpy.core"])
    @pytest.mark.parametrize("mmap", [True, False])
    def test_of_an_older_torch_with_a_scalar_of_numpy(self, tmp_path, numpy, mmap):
        content = {"state_dict": {"a": torch.arange(3)}, "best_mAP": np.float64(0.7)}
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=False)
        name = np.float64(0.7).__reduce__()[0].__module__.removesuffix(".multiarray").encode()
        old = buffer.getvalue()
        assert old.count(name + b".multiarray") == 1
        (tmp_path / "old.pth").write_bytes(old.replace(name + b".m", numpy + b".m"))
        read = read_file(tmp_path / "old.pth", mmap=mmap)
        assert torch.equal(read["state_dict"]["a"], torch.arange(3))

    def test_builds_no_other_object_of_numpy(self, tmp_path):
        torch.save({"state_dict": {}, "scores": np.zeros(3)}, tmp_path / "odd.pth")
        with pytest.raises(ValueError, match=r"odd.pth: refused, the file holds objects"):
            read_file(tmp_path / "odd.pth")

    @pytest.mark.parametrize("old", [True, False])
    def test_executes_nothing(self, tmp_path, old):
        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "executed"), "w"))

        path = tmp_path / "evil.pth"
        torch.save({"a": Evil()}, path, _use_new_zipfile_serialization=not old)
        with pytest.raises(ValueError, match=r"evil.pth: refused, the file holds objects"):
            read_file(path)
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut off"])
    def test_none_of_torchs(self, tmp_path, content):
        (tmp_path / "odd.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"odd.pth: no readable checkpoint"):
            read_file(tmp_path / "odd.pth")

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere.pth: no such checkpoint"):
            read_file(tmp_path / "nowhere.pth")


def test_check_weights_names_the_first_that_differs():
    own = {"a": torch.zeros(2), "b": torch.zeros(3), "extra": {"rows": 1}}
    check_weights(dict(own), own)
    with pytest.raises(ValueError, match=r"b is missing in the checkpoint, \(3,\) here;"):
        check_weights({"a": torch.zeros(2), "extra": {}}, own)
    with pytest.raises(ValueError, match=r"a is \(4,\) in the checkpoint, \(2,\) here \(1 more"):
        check_weights({**own, "a": torch.zeros(4), "c": torch.zeros(1)}, own)


class TestLast:
    """`--ckpt_path last`."""

    def test_goes_on_from_another_version(self, run, run_args, checkpoint_args, tmp_path, caplog):
        options = [*run_args, *checkpoint_args, "--ckpt_path=last"]
        with pytest.warns(UserWarning, match="there is no checkpoint yet, training starts anew"):
            run("fit", *options, "--trainer.max_epochs=1")
        caplog.clear()
        cli = run("fit", *options)
        first = tmp_path / "demo/version_0/checkpoints/last.ckpt"
        assert f"--ckpt_path last: takes {first}" in caplog.text
        assert cli.trainer.global_step == 6
        assert (tmp_path / "demo/version_1/checkpoints/last.ckpt").is_file()

    def test_without_any(self, run, run_args, capsys):
        with pytest.raises(SystemExit):
            run("validate", *run_args, "--ckpt_path=last")
        error = capsys.readouterr().err.splitlines()[-1]
        assert error == "error: --ckpt_path last: there is no checkpoint of a run of this name"


class TestOtherThings:
    """That lie under a checkpoint's name."""

    @pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
                "a Git LFS pointer, .*",
            ),
            ("\n<!DOCTYPE html><html>Virus scan", "a web page, .*download it again"),
        ],
    )
    def test_are_called_by_their_name(self, tmp_path, name, text, message):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"{name}: {message}"):
            read_tensors(tmp_path / name)

    def test_text_executes_no_code(self, tmp_path):
        (tmp_path / "a.pth").write_text("0123456789" * 9)
        with pytest.raises(ValueError, match=r"a\.pth: no readable checkpoint"):
            read_file(tmp_path / "a.pth")
