from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import pplr_lightning

from .conftest import ROOT

pytest.importorskip("setuptools", minversion="77")

# The version is read, not imported: where packages are built there is no torch.
BUILD = """
import sys
sys.modules["torch"] = None
from setuptools import build_meta
folder = sys.argv[1]  # setuptools changes sys.argv
print(build_meta.build_sdist(folder), build_meta.build_wheel(folder))
"""
SOURCES = ("pyproject.toml", "setup.cfg", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """A sdist and a wheel, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("package")
    tree = folder / "tree"
    tree.mkdir()
    for name in (*SOURCES, "Makefile"):
        shutil.copy(ROOT / name, tree)
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "reference")
    for name in ("src", "configs", "tests", "docs", "benchmarks"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignore)
    command = [sys.executable, "-c", BUILD, str(folder)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    sdist, wheel = done.stdout.split()[-2:]
    return {"sdist": folder / sdist, "wheel": folder / wheel}


def test_wheel_holds_the_package_and_nothing_else(built):
    names = set(zipfile.ZipFile(built["wheel"]).namelist())
    version = pplr_lightning.__version__
    assert built["wheel"].name == f"pplr_lightning-{version}-py3-none-any.whl"
    top = {name.split("/")[0] for name in names}
    assert top == {"pplr_lightning", f"pplr_lightning-{version}.dist-info"}
    assert f"pplr_lightning-{version}.dist-info/licenses/LICENSE" in names
    package = ROOT / "src/pplr_lightning"
    modules = {f"pplr_lightning/{file.relative_to(package)}" for file in package.rglob("*.py")}
    configs = {
        f"pplr_lightning/configs/{file.relative_to(ROOT / 'configs')}"
        for file in (ROOT / "configs").rglob("*.yaml")
    }
    assert "pplr_lightning/configs/demo.yaml" in configs
    assert "pplr_lightning/configs/ablation/both.yaml" in configs
    templates = {
        f"pplr_lightning/{file.relative_to(package)}"
        for room in ("report", "serving")
        for file in (package / room / "templates").iterdir()
    }
    assert "pplr_lightning/report/templates/report.html.jinja" in templates
    own = {name for name in names if name.startswith("pplr_lightning/")}
    assert own == modules | configs | templates | {"pplr_lightning/py.typed"}


def test_wheel_says_what_it_needs(built):
    wheel = zipfile.ZipFile(built["wheel"])
    name = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = wheel.read(name).decode()
    assert "\nRequires-Python: >=3.10\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    extras = {"gpu", "cpu", "simclr", "tensorboard", "export", "test", "dev"}
    assert extras <= {
        line.removeprefix("Provides-Extra: ")
        for line in metadata.splitlines()
        if line.startswith("Provides-Extra: ")
    }
    assert "# pplr-lightning\n" in metadata


def test_sdist_holds_what_the_tests_read(built):
    with tarfile.open(built["sdist"]) as sdist:
        files = {member.name.partition("/")[2]: member for member in sdist.getmembers()}
    wanted = {*SOURCES, "Makefile", "configs/demo.yaml", "tests/conftest.py", "tests/data/trees.py"}
    assert wanted <= set(files)
    assert files["src/pplr_lightning/configs/demo.yaml"].isfile()  # no link to outside the package
