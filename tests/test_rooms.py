"""The structure that docs/architecture.md draws: imports point down, a file's name is used once."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import pplr_lightning

PACKAGE = Path(pplr_lightning.__file__).parent
# From the top down; a room imports itself and those below.
ROOMS = (
    "__main__", "cli", "commands", "serving", "callbacks", "gallery", "methods", "sharing",
    "labelers", "visualization", "evaluation", "networks", "weights", "data", "report",
    "distributed", "lightning_internals", "functional",
)  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The first name below the package, without an ending."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Rooms that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "pplr_lightning":
            names = [f"pplr_lightning.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        yield from (name.split(".")[1] for name in names if name.startswith("pplr_lightning."))


@pytest.mark.parametrize(
    "path", [path for path in FILES if room(path) != "__init__"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)  # fmt: skip
def test_imports_point_down(path):
    floor = ROOMS.index(room(path))
    up = {name for name in imported(path) if name in ROOMS and ROOMS.index(name) < floor}
    assert not up, f"{room(path)} imports {up}, which lie above it"
    assert set(imported(path)) <= {*ROOMS, "__version__"}


def test_every_room_is_on_a_floor():
    assert {room(path) for path in FILES} == {*ROOMS, "__init__"}


def test_a_files_name_is_used_once():
    counts = Counter(path.name for path in FILES if path.name != "__init__.py")
    assert [name for name, count in counts.items() if count > 1] == []


def test_few_files_lie_at_the_top():
    assert len(list(PACKAGE.glob("*.py"))) <= 6


def test_functions_know_nothing_of_lightning():
    for path in (PACKAGE / "functional").glob("*.py"):
        names = [
            node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, (ast.Import, ast.ImportFrom))
        ]
        assert not any(str(name).startswith("lightning") for name in names), path


def test_every_room_says_what_it_is_for():
    for path in FILES:
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
