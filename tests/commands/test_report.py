from __future__ import annotations

import pytest


@pytest.fixture
def folder(tmp_path):
    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "metrics.csv").write_text("epoch,step,train/loss,val/mAP\n0,1,2.5,\n0,1,,0.5\n")
        return folder

    return make


def test_writes_into_the_runs_folder_and_says_where(run, folder, capsys):
    one = folder("one")
    assert run("report", str(one)) == one / "report.html"
    assert "50.0" in (one / "report.html").read_text()
    assert capsys.readouterr().out.strip() == str(one / "report.html")


def test_writes_where_it_is_told(run, folder, tmp_path):
    one = folder("one")
    run("report", str(one), "--output", str(tmp_path / "new/page.html"))
    assert (tmp_path / "new/page.html").is_file()
    assert not (one / "report.html").exists()


def test_compares_two_runs(run, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = str(folder("one")), str(folder("two"))
    run("report", *folders)
    assert "Two runs side by side" in (tmp_path / "comparison.html").read_text()
    run("report", *folders, "--output", "other.html")
    assert (tmp_path / "other.html").is_file()


@pytest.mark.parametrize(
    ("path", "message"),
    [("nowhere", "nowhere: no such folder"), (".", "no run's folder"), ("..", "the runs one")],
)
def test_no_run_is_one_line(run, folder, capsys, monkeypatch, path, message):
    inside = folder("one") / "empty"
    inside.mkdir()
    monkeypatch.chdir(inside if path != ".." else inside.parent)
    with pytest.raises(SystemExit) as stop:
        run("report", path)
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize("runs", [("nowhere",), ("nowhere", "nowhere")])
def test_an_output_that_is_a_folder(run, capsys, tmp_path, runs):
    with pytest.raises(SystemExit) as stop:
        run("report", *runs, "--output", str(tmp_path))  # before a run is read
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == f"error: --output {tmp_path}: is a folder; give the name of a file"


def test_a_link_beside_the_page_is_not_written_through(run, folder, tmp_path):
    one = folder("one")
    (tmp_path / "thesis.txt").write_text("precious")
    (one / "report.html.part").symlink_to(tmp_path / "thesis.txt")
    run("report", str(one))
    assert (one / "report.html").is_file()
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_folder_in_the_place_of_a_page_is_one_line(run, folder, capsys):
    one = folder("one")
    (one / "report.html/inside").mkdir(parents=True)
    with pytest.raises(SystemExit) as stop:
        run("report", str(one))
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert str(one / "report.html") in line


def test_a_name_too_long_is_one_line(run, folder, capsys):
    with pytest.raises(SystemExit) as stop:
        run("report", str(folder("one")), "--output", 300 * "x")
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "File name too long" in line


def test_more_than_two(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run("report", "a", "b", "c")
    assert stop.value.code == 2
    assert "got 3 folders: give one run, or two" in capsys.readouterr().err
