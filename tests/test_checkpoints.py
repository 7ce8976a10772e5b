from __future__ import annotations

import os

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from pplr_lightning.checkpoints import WholeCheckpointIO, check_weights, newest_checkpoint


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

    def test_none(self, trainer):
        assert newest_checkpoint(trainer) is None

    def test_in_a_folder_of_its_own(self, tmp_path):
        saving = ModelCheckpoint(dirpath=tmp_path / "here")
        trainer = Trainer(accelerator="cpu", logger=False, callbacks=[saving])
        newest = touch(tmp_path / "here/epoch=1.ckpt", 10)
        assert newest_checkpoint(trainer) == newest


class TestWholeCheckpointIO:
    def test_replaces_what_was_there_and_leaves_nothing_else(self, tmp_path):
        for value in (1, 2):
            WholeCheckpointIO().save_checkpoint({"value": value}, tmp_path / "new/last.ckpt")
        assert torch.load(tmp_path / "new/last.ckpt", weights_only=True) == {"value": 2}
        assert len(list((tmp_path / "new").iterdir())) == 1

    def test_on_a_full_device(self, tmp_path):
        path = tmp_path / "last.ckpt"
        WholeCheckpointIO().save_checkpoint({"value": 1}, path)
        (tmp_path / "last.ckpt.part").symlink_to("/dev/full")  # every write to it: no space left
        with pytest.raises(OSError, match=r"last.ckpt: the checkpoint cannot .*\(No space left"):
            WholeCheckpointIO().save_checkpoint({"value": 2}, path)
        assert torch.load(path, weights_only=True) == {"value": 1}


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
