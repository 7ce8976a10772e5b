from __future__ import annotations

import os

import pytest

from pplr_lightning.commands.config_files import check_configs


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"data: [1,\n", "no YAML: while parsing a flow"),
        (b"data: \xe9\n", "no YAML: 'utf-8' codec"),
        (b"", "holds no options; write them as `data: {batch_size: 64}`"),
        (b"- data\n", "holds no options"),
        (b"data: null\n", "data is empty; leave it out, or give its options"),
        (b"data: [3]\n", "data is no mapping; leave it out, or give its options"),
        (b"data: !!binary aGk=\n", "data is no mapping; leave it out, or give"),
        (b"1: {}\n", "1 is no option's name"),
        (b"~: {}\n", "None is no option's name"),
        (b'data: {cache: "\\ud800"}\n', ", line 1: holds half a character; write the whole one"),
        (b"trainer:\ndata: {padding: 3}\n", "trainer is empty; leave it out"),
        (b"data:\n  padding: 3\nmodel: {}\ndata:\n", ", line 4: data stands in line 1, too; giv"),
        (b"data:\n  padding: 3\n  padding: 3\n", ", line 3: padding stands in line 2, too; give"),
        (b"data: {padding: 010}\n", ", line 1: 010 would be read as 8: write that, or 'quotes'"),
        (b"data:\n  image_size: [384, 1:30]\n", ", line 2: 1:30 would be read as 90: write that"),
        (b"data: {random_erasing: 0:0.5}\n", ", line 1: 0:0.5 would be read as 0.5: write that"),
    ],
)
def test_names_a_config_that_is_none(run, tmp_path, capsys, content, message):
    (tmp_path / "a.yaml").write_bytes(content)
    for words in (["--config", f"{tmp_path}/a.yaml"], [f"--config={tmp_path}/a.yaml"]):
        with pytest.raises(SystemExit) as stop:
            run("fit", *words)
        assert stop.value.code == 1
        (line,) = capsys.readouterr().err.splitlines()
        colon = "" if message.startswith(",") else ": "
        assert line.startswith(f"error: {tmp_path}/a.yaml{colon}{message}")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{c}: &{c} [{','.join([f'*{p}'] * 10)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("option", ["data", "data.dataset", "model.network", "optimizer"])
@pytest.mark.parametrize("content", [BOMB, "a: &a [*a]\n", "{a: " * 2000 + "}" * 2000])
def test_any_file_of_options_is_read_in_bounded_time(
    run, run_args, tmp_path, capsys, option, content
):
    (tmp_path / "odd.yaml").write_text(content)
    with pytest.raises(SystemExit) as stop:
        run("fit", *run_args, f"--{option}={tmp_path}/odd.yaml")
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {option}: ")


@pytest.mark.parametrize("option", ["config", "data", "model.network"])
def test_a_pipe_is_not_waited_for(run, tmp_path, capsys, option):
    os.mkfifo(tmp_path / "a.yaml")
    for words in ([f"--{option}={tmp_path}/a.yaml"], [f"--{option}", f"{tmp_path}/a.yaml"]):
        with pytest.raises(SystemExit):
            run("fit", *words)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path}/a.yaml: no regular file")


def test_a_config_that_cannot_be_read(run, capsys):
    with pytest.raises(SystemExit):
        run("fit", "--config=/proc/self/mem")
    assert "error: /proc/self/mem: cannot be read (Input/output" in capsys.readouterr().err


def test_anchors_and_quoted_numbers_are_no_surprise(tmp_path):
    text = "a: &a {padding: 0, cache: '010', seed: \"1:30\"}\ndata: {<<: *a}\nmore: [*a, *a]\n"
    (tmp_path / "a.yaml").write_text(text)
    check_configs(["--config", str(tmp_path / "a.yaml")])
