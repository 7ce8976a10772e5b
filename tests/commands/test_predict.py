from __future__ import annotations

import fcntl
import multiprocessing
import os
import re
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from pplr_lightning.evaluation.fingerprint import checksum
from pplr_lightning.gallery.embedding_parts import EmbeddingParts
from pplr_lightning.gallery.embeddings import read_embeddings

from ..tiny import module, save

PATTERN = r"(?P<person>-?\d+)_c(?P<camera>\d+)"


@pytest.fixture(scope="module")
def crops(drawn, tmp_path_factory):
    """42 images in folders, and a file that is none."""
    root = tmp_path_factory.mktemp("crops") / "root"
    for number, path in enumerate(sorted((drawn / "bounding_box_train").iterdir())[:42]):
        folder = root / f"some place {number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(folder / f"{path.stem}.png")
    (root / "some place 1/0007_c1_broken.jpg").write_bytes(b"no image")
    return root


@pytest.fixture
def options(tiny_checkpoint, crops, tmp_path):
    return [
        f"--ckpt_path={tiny_checkpoint}",
        f"--data.root={crops}",
        f"--data.pattern={PATTERN}",
        "--data.batch_size=8",
        "--data.num_workers=0",
        f"--out={tmp_path / 'new/e.parquet'}",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "new/e.parquet"


@pytest.fixture(scope="module")
def alone(run_module, tiny_checkpoint, crops, tmp_path_factory):
    """What one process that is not disturbed writes."""
    path = tmp_path_factory.mktemp("alone") / "e.parquet"
    run_module(
        "predict", f"--ckpt_path={tiny_checkpoint}", f"--data.root={crops}",
        f"--data.pattern={PATTERN}", "--data.batch_size=8", "--data.num_workers=0",
        f"--out={path}", "--trainer.accelerator=cpu",
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def run_module():
    from pplr_lightning.cli import main

    return lambda *args: main(list(args))


def test_one_process(alone, crops):
    found = read_embeddings(alone)
    images = sorted(path for path in crops.rglob("*.png"))
    assert found.items["path"].to_pylist() == [str(path) for path in images]
    ids = [re.match(PATTERN, path.name).groups() for path in images]
    assert found.items["person_id"].to_pylist() == [int(person) for person, _ in ids]
    assert found.items["camera_id"].to_pylist() == [int(camera) for _, camera in ids]
    made = module()
    assert found.fingerprint.weights == checksum(made.network)
    assert found.fingerprint.preprocessing == made.preprocessing
    vectors = torch.from_numpy(found.vectors[0:42])
    assert torch.allclose(vectors, made.embed(images), atol=1e-5)
    assert [path.name for path in alone.parent.iterdir()] == ["e.parquet"]


def same(path, other) -> bool:
    first, second = read_embeddings(path), read_embeddings(other)
    return first.items.equals(second.items) and np.array_equal(
        first.vectors[0:42], second.vectors[0:42]
    )


def test_names_what_it_left_out(run, options, out, capsys):
    run("predict", *options, "--data.batch_size=100")
    lines = capsys.readouterr().out.splitlines()
    assert f"42 images are embedded in {out}" in lines
    assert "left out (1):" in lines
    assert "0007_c1_broken.jpg: cannot be read as an image (cannot ident" in lines[-1]


@pytest.mark.parametrize(("features", "width"), [("parts", 2 * 96), ("both", 3 * 96)])
def test_features(run, options, out, features, width):
    run("predict", *options, f"--features={features}")
    found = read_embeddings(out)
    assert found.vectors.shape == (42, width)
    assert found.fingerprint.features == features


class Stop:
    """Has a process end itself while it writes its third block."""

    def __init__(self, number):
        self.number, self.left, self.write = number, 2, EmbeddingParts.write

    def __call__(self, parts, indices, vectors):
        if self.left == 0:
            (parts.folder / "000000002.part").write_bytes(b"half of it")
            os.kill(os.getpid(), self.number)
        self.left -= 1
        self.write(parts, indices, vectors)


def _predict_and_die(options):
    from pplr_lightning.cli import main

    torch.set_num_threads(1)
    stop = Stop(signal.SIGKILL)
    EmbeddingParts.write = lambda *args: stop(*args)
    main(["predict", *options])


def test_killed_it_goes_on(alone, run, options, out, capsys, monkeypatch):
    process = multiprocessing.get_context("fork").Process(target=_predict_and_die, args=(options,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert not out.exists()
    written = []
    write = EmbeddingParts.write

    def count(parts, indices, vectors):
        written.extend(indices.tolist())
        write(parts, indices, vectors)

    monkeypatch.setattr(EmbeddingParts, "write", count)
    run("predict", *options)
    assert sorted(max(index, -1 - index) for index in written) == list(range(16, 43))
    assert "16 of 43 images are done already" in capsys.readouterr().out
    assert same(out, alone)


def test_a_folder_that_is_gone_for_a_while(alone, run, options, out, crops, capsys, monkeypatch):
    write, away = EmbeddingParts.write, crops.with_name("away")

    def remove(*args):
        write(*args)
        if crops.exists():
            crops.rename(away)

    monkeypatch.setattr(EmbeddingParts, "write", remove)
    with pytest.raises(SystemExit) as stop:
        run("predict", *options)
    assert stop.value.code == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: [Errno 2] No such file or directory: '{crops}/")
    assert not out.exists()
    monkeypatch.undo()
    away.rename(crops)
    run("predict", *options)
    assert "8 of 43 images are done already" in capsys.readouterr().out
    assert same(out, alone)


def test_sigterm(alone, run, options, out, capsys, monkeypatch):
    stop = Stop(signal.SIGTERM)
    monkeypatch.setattr(EmbeddingParts, "write", lambda *args: stop(*args))
    with pytest.raises(SystemExit) as left:
        run("predict", *options)
    assert left.value.code == 128 + signal.SIGTERM
    error = capsys.readouterr().err
    assert "stopped by SIGTERM; what is embedded is kept. Start again" in error
    monkeypatch.undo()
    run("predict", *options)
    assert "24 of 43 images are done already" in capsys.readouterr().out
    assert same(out, alone)


def test_killed_when_all_was_done(alone, run, options, out, capsys, monkeypatch):
    monkeypatch.setattr(EmbeddingParts, "merge", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("predict", *options)
    monkeypatch.undo()
    run("predict", *options)
    assert "43 of 43 images are done already" in capsys.readouterr().out
    assert same(out, alone)


TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")


def test_two_processes_write_what_one_does(alone, run_several, options, out):
    done = run_several(2, "predict", *options, *TWO)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("42 images are embedded") == 1
    assert same(out, alone)
    assert [path.name for path in out.parent.iterdir()] == ["e.parquet"]


def test_two_processes_go_on_with_less_work_than_processes(
    alone, run, run_several, options, out, monkeypatch
):
    monkeypatch.setattr(EmbeddingParts, "merge", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("predict", *options)
    (out.parent / "e.parquet.parts/000000004.parquet").unlink()
    done = run_several(2, "predict", *options, *TWO)  # the first of them has nothing to do
    assert done.returncode == 0, done.stderr
    assert same(out, alone)


def test_a_checkpoint_that_does_not_say_the_image_size(run, options, out, tmp_path):
    """The network's own then counts, or the one that is given."""
    made = module()
    made.preprocessing = None
    older = f"--ckpt_path={save(made, tmp_path / 'older.ckpt')}"
    for size, given in (((384, 128), []), ((96, 32), ["--data.image_size=[96,32]"])):
        run("predict", *options, older, *given)
        assert read_embeddings(out).fingerprint.preprocessing.image_size == size
        out.unlink()


class TestBadInput:
    """Each ends with one line before anything is embedded."""

    def fails(self, run, capsys, *options) -> str:
        with pytest.raises(SystemExit) as stop:
            run("predict", *options)
        assert stop.value.code == 1
        return capsys.readouterr().err.strip().splitlines()[-1]

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("--ckpt_path=nowhere.ckpt", "error: nowhere.ckpt: no such checkpoint"),
            ("--ckpt_path=setup.cfg", "error: setup.cfg: "),
            ("--data.root=nowhere", "error: nowhere: no such folder"),
            ("--data.root=configs", "error: configs: the folder holds no image (looked for"),
            ("--data.pattern=(", "error: pattern '(' is no regular expression"),
            (
                "--data.pattern=(?P<camera>some place)",
                "the camera 'some place' is no number: ids must mean the same in every file that",
            ),
            ("--data.table=ids.csv", "takes its ids from pattern or from table: give one"),
            ("--data.batch_size=0", "error: data.batch_size must be at least 1, got 0"),
            ("--data.num_workers=-1", "error: data.num_workers must be at least 0, got -1"),
            ("--trainer.devices=0", "error: `Trainer(devices='0')` value is not a valid input"),
            pytest.param(
                "--trainer.accelerator=gpu",
                "error: No supported gpu backend found",
                marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
            ),
            ("--data.image_size=[0,32]", "error: data.image_size=(0, 32): give (height, width)"),
            ("--out=setup.cfg", "error: setup.cfg is there already: name another file"),
        ],
    )
    def test_one_line(self, run, options, capsys, out, option, message):
        assert message in self.fails(run, capsys, *options, option)
        assert not out.parent.exists()

    def test_weights_that_are_not_finite(self, run, options, capsys, out, tmp_path):
        made = module()
        made.network.neck.weight.data[0] = float("nan")
        message = self.fails(
            run, capsys, *options, f"--ckpt_path={save(made, tmp_path / 'nan.ckpt')}"
        )
        assert message.startswith("error: vectors must be finite, got NaN or Inf in 8 of 8 rows")
        assert not out.exists()

    def test_while_another_process_writes(self, run, options, capsys, out, monkeypatch):
        monkeypatch.setattr(EmbeddingParts, "merge", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("predict", *options)
        monkeypatch.undo()
        with open(f"{out}.parts/lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert f"{out}: another process is writing it" in self.fails(run, capsys, *options)
        run("predict", *options)

    def test_a_name_that_is_not_utf8(self, run, options, capsys, crops, out, tmp_path):
        picture = next(crops.rglob("*.png")).read_bytes()
        (tmp_path / "named").mkdir()
        with open(os.fsencode(tmp_path) + b"/named/7_c1_\xe9.png", "wb") as file:
            file.write(picture)
        message = self.fails(run, capsys, *options, f"--data.root={tmp_path / 'named'}")
        assert message.startswith(f"error: '{tmp_path}/named/7_c1_\\udce9.png': the name is not")
        assert "rename the file" in message
        assert not out.parent.exists()

    def test_parts_of_another_run(self, run, options, capsys, out, monkeypatch):
        monkeypatch.setattr(EmbeddingParts, "merge", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("predict", *options)
        message = self.fails(run, capsys, *options, "--data.image_size=[96,32]")
        assert (
            "holds the parts of a run with another image_size ([64, 32], here [96, 32])" in message
        )
        message = self.fails(run, capsys, *options, "--trainer.precision=bf16-mixed")
        assert "a run with another precision (32-true, here bf16-mixed): remove" in message
        shutil.rmtree(f"{out}.parts")
        monkeypatch.undo()
        run("predict", *options, "--data.image_size=[96,32]")

    @pytest.mark.parametrize("option", ["--features=all", "--data.rot=x", "--trainer.max_epochs=3"])
    def test_mistyped_option(self, run, options, capsys, option):
        with pytest.raises(SystemExit) as stop:
            run("predict", *options, option)
        assert stop.value.code == 2
        assert option.split("=")[0].lstrip("-").split(".")[-1] in capsys.readouterr().err
