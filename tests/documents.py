"""README and pages: their blocks of code, run or checked."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonargparse
import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from pplr_lightning.cli import main

from .conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Each records how it was called instead of running; any other program is not found.
PROGRAMS = ("docker", "make", "pip", "python", "torchrun", "wandb")
PRELUDE = "".join(f"{name}() {{ printf '%s\\0' {name} \"$@\" $'\\n' >&3; }}\n" for name in PROGRAMS)


class Parsed(Exception):  # noqa: N818
    """The arguments of a command were found right."""


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a language in a page."""
    parser = CodeBlockParser(language, evaluator=lambda example: None)
    return [str(example.parsed) for example in Sybil([parser]).parse(page).examples()]


def run_python(page: Path) -> dict[str, Any]:
    """Runs a page's blocks of Python one after the other, and returns their names."""
    document = Sybil([PythonCodeBlockParser()]).parse(page)
    module = ModuleType(f"page_{page.stem}")  # as a script has one
    document.namespace, sys.modules[module.__name__] = vars(module), module
    for example in document.examples():
        example.evaluate()  # an error names the page's line
    return document.namespace


def commands(block: str, folder: Path) -> Iterator[list[str]]:
    """The programs that a block of bash calls, with their arguments as bash expands them."""
    record = folder / "calls"
    script = f"set -euo pipefail\nexec 3> {record}\n{PRELUDE}{block}"
    environment = {**os.environ, "PATH": ""}
    done = subprocess.run(
        ["/bin/bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{block}\n{done.stderr}"
    call: list[str] = []
    for word in record.read_text().split("\0"):
        if word == "\n":
            yield call
            call = []
        else:
            call.append(word)


def check(call: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a command names an option, target, extra or file that is not there."""
    match call:
        case ["make", *words]:
            targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), flags=re.M)
            assert {word for word in words if "=" not in word} <= set(targets), call
        case ["pip", "install", *words]:
            config = ConfigParser(interpolation=None)
            config.read(ROOT / "setup.cfg")
            for extras in re.findall(r"\.\[(.*)\]", " ".join(words)):
                assert set(extras.split(",")) <= set(config["options.extras_require"]), call
        case ["docker", "build", *words]:
            given = {word.partition("=")[0] for word in words if "=" in word}
            known = re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), flags=re.M)
            assert given <= set(known), call
        case ["docker", "run", *words]:
            within = [place for place, word in enumerate(words) if word in PROGRAMS]
            if within:  # else the image's own command
                check(words[within[0] :], monkeypatch)
        case ["torchrun", *words]:
            check(["python", *words[words.index("-m") :]], monkeypatch)
        case ["python", "-m", "pplr_lightning", *words]:
            _parses(lambda: main(words), monkeypatch)
        case ["python", "-m", "pytest", *files]:
            assert all((ROOT / file).exists() for file in files), call
        case ["python", "-c", code]:
            compile(code, "<-c>", "exec")
        case ["python", script, *words]:
            monkeypatch.setattr("sys.argv", [script, *words])
            _parses(lambda: runpy.run_path(str(ROOT / script), run_name="__main__"), monkeypatch)
        case ["wandb", *_]:
            pass
        case _:
            raise AssertionError(f"no check for {call}")


def _parses(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a command as far as its arguments are parsed; they are where a message complains."""
    with monkeypatch.context() as patch:
        for parser, name in (
            (argparse.ArgumentParser, "parse_args"),
            (jsonargparse.ArgumentParser, "parse_args"),
        ):
            patch.setattr(parser, name, _then_stop(getattr(parser, name)))
        with pytest.raises(Parsed):
            command()


def _then_stop(parse: Any) -> Any:
    calls: list[Any] = []  # under way: a class within a class is read by a parser of its own

    def parse_args(self: Any, *args: Any, **options: Any) -> Any:
        calls.append(self)
        try:
            found = parse(self, *args, **options)
        finally:
            calls.pop()
        if calls:
            return found
        raise Parsed

    return parse_args
