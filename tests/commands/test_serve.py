from __future__ import annotations

import socket

import pytest
import torch

from pplr_lightning.gallery import Gallery

from ..tiny import module, save

pytest.importorskip("gradio")


@pytest.fixture
def fails(run, made, capsys, monkeypatch):
    """Runs the command with options that it refuses, and returns the line that says why."""
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "False")  # and back to what it was

    def call(*options) -> str:
        with pytest.raises(SystemExit) as stop:
            run(
                "serve", f"--index={made.index}", f"--ckpt_path={made.checkpoint}", "--port=0",
                *options,
            )  # fmt: skip
        assert stop.value.code == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    return call


def test_a_public_address(fails):
    line = fails("--host=0.0.0.0", "--index=nowhere")  # before anything is read
    assert line.startswith("error: --host 0.0.0.0: other machines could reach it")
    assert "--allow_public" in line


def test_a_port_in_use(fails):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert fails(f"--port={port}").startswith(
            f"error: --port {port}: another program listens there"
        )


def test_another_model(fails, tmp_path):
    other = save(module(seed=1), tmp_path / "other.ckpt")
    line = fails(f"--ckpt_path={other}")
    assert line.startswith("error: the gallery's vectors are of another model")
    assert f"those of {other}" in line


def test_a_corrupt_index(fails, made, tmp_path):
    Gallery.load(made.index).save(tmp_path / "cut.index")
    file = tmp_path / "cut.index/index.faiss"
    file.write_bytes(file.read_bytes()[:100])
    assert f"error: {tmp_path / 'cut.index'}: a broken gallery" in fails(
        f"--index={tmp_path / 'cut.index'}"
    )


def test_an_empty_gallery(fails, made, tmp_path):
    empty = Gallery.load(made.index)
    empty.remove([str(path) for path in made.images])
    empty.save(tmp_path / "empty.index")
    line = fails(f"--index={tmp_path / 'empty.index'}")
    assert f"error: {tmp_path / 'empty.index'}: the gallery is empty: add images" in line


def test_a_checkpoint_that_holds_code(fails, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"state_dict": {}, "a": Evil()}, tmp_path / "evil.ckpt")
    line = fails(f"--ckpt_path={tmp_path / 'evil.ckpt'}")
    assert f"error: {tmp_path / 'evil.ckpt'}: refused, the file holds objects" in line
    assert not (tmp_path / "executed").exists()


def test_gradio_is_missing(fails, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    assert "pip install 'pplr-lightning[serve]'" in fails()
