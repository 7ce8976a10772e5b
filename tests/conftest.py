from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

import pplr_lightning
from pplr_lightning import PPLRModule
from pplr_lightning.cli import main
from pplr_lightning.data import Sample, SyntheticReID
from pplr_lightning.gallery import write_embeddings

from .galleries import Made, make
from .processes import run_launcher as launched
from .processes import run_ranks
from .tiny import module, save

os.environ.setdefault("WANDB_MODE", "offline")
ROOT = Path(__file__).parents[1]

# Files of few tests that take long: they start processes, or build the documentation.
LONG = ("test_ddp", "test_faults", "test_configs", "test_figures", "test_site", "test_docs")

# What earlier tests of the process left open is closed in whichever test comes next, with a word.
warns_of_nothing = pytest.mark.filterwarnings(
    "error", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Has workers begin with the long files, so that none is left with one at the end."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(autouse=True, scope="session")
def _threads():
    torch.set_num_threads(1)  # several workers share the cores


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """A small drawn data set: 12 training and 6 test identities."""
    root = tmp_path_factory.mktemp("drawn") / "set"
    SyntheticReID(
        root,
        train_identities=12,
        test_identities=6,
        images_per_identity=8,
        image_size=(64, 32),
        distractors=4,
        junk=3,
    ).prepare()
    return root


@pytest.fixture
def run_args(drawn: Path, tmp_path: Path) -> list[str]:
    """Options that make configs/demo.yaml a run of seconds in `tmp_path`."""
    return run_options(drawn, tmp_path)


def run_options(drawn: Path, folder: Path) -> list[str]:
    """Options that make configs/demo.yaml a run of seconds in `folder`."""
    return [
        f"--config={ROOT / 'configs/demo.yaml'}",
        "--data.dataset=pplr_lightning.data.Market1501",
        f"--data.dataset.init_args.root={drawn}",
        "--data.image_size=[64,32]",
        "--data.batch_size=16",
        "--data.iterations=3",
        "--data.num_workers=0",
        "--model.network.backbone=test_resnet",
        "--model.network.last_stride=1",
        "--model.network.norm_batch_size=8",
        "--model.max_clusters=64",
        "--pseudo_labels.labeler.k1=6",
        "--pseudo_labels.labeler.k2=2",
        "--model.agreement_k=4",
        "--pseudo_labels.labeler.min_samples=2",
        "--figures.names=[]",
        "--trainer.max_epochs=2",
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.log_every_n_steps=1",
        f"--trainer.logger.init_args.save_dir={folder}",
        "--trainer.callbacks=[]",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    ]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A checkpoint of a tiny module for images of 64 x 32, without a training."""
    return save(module(), tmp_path_factory.mktemp("tiny") / "last.ckpt")


@pytest.fixture(scope="session")
def made(drawn: Path, tmp_path_factory) -> Made:
    """A gallery of all branches, with its checkpoint and images."""
    pytest.importorskip("faiss")
    return make(drawn, tmp_path_factory.mktemp("gallery"))


CHECKPOINT = [
    "--trainer.callbacks+=ModelCheckpoint",
    "--trainer.callbacks.filename=last",
    "--trainer.callbacks.save_on_train_epoch_end=true",
    "--trainer.callbacks.enable_version_counter=false",
]


@pytest.fixture(scope="session")
def trained(drawn: Path, tmp_path_factory) -> Path:
    """The folder of a run of configs/demo.yaml on the command line, made small: one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    main(["fit", *run_options(drawn, folder), *CHECKPOINT, "--trainer.max_epochs=1"])
    return folder / "demo/version_0"


@pytest.fixture
def checkpoint_args() -> list[str]:
    """The checkpoint callback that `run_args` leaves out."""
    return CHECKPOINT


@pytest.fixture
def run() -> Callable[..., object]:
    """Runs the command line in this process."""
    return lambda *args: main(list(args))


@pytest.fixture
def run_several(tmp_path: Path) -> Callable[..., object]:
    """Runs the command line on several ranks, as torchrun starts them, without its imports."""
    return lambda ranks, *args, **options: run_ranks(args, ranks, tmp_path / "ranks", **options)


@pytest.fixture
def run_launcher(tmp_path: Path) -> Callable[..., object]:
    """Runs the command line without its imports; Lightning starts the other processes."""
    return lambda *args, **options: launched(args, tmp_path / "ranks", **options)


@pytest.fixture
def run_process(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs the command line in a process of its own (and the processes that it starts)."""

    def call(
        *args: str,
        timeout: float = 600,
        launcher: tuple[str, ...] = (),
        program: tuple[str, ...] = ("pplr_lightning",),
    ) -> object:
        command = [sys.executable, *launcher, "-m", *program, *args]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=environment, cwd=ROOT
        )

    return call


class _Smaller:
    """Calls `real` with some options replaced; else it is `real`."""

    def __init__(self, real, options):
        self.real, self.options = real, options

    def __call__(self, *args, **given):
        return self.real(*args, **{**given, **self.options(given)})

    def __getattr__(self, name):
        return getattr(self.real, name)


@pytest.fixture(scope="session")
def searchable(drawn: Path, trained: Path, tmp_path_factory) -> Path:
    """A folder with the vectors of 12 images, `embeddings.parquet`, and one anew, `someone.jpg`."""
    folder = tmp_path_factory.mktemp("searchable")
    paths = sorted((drawn / "bounding_box_train").glob("*.png"))[:12]
    made = PPLRModule.load_from_checkpoint(trained / "checkpoints/last.ckpt")
    samples = [Sample(str(path), -1, -1) for path in paths]
    write_embeddings(folder / "embeddings.parquet", samples, made.embed(paths), made.fingerprint())
    Image.open(paths[4]).save(folder / "someone.jpg", quality=100, subsampling=0)
    return folder


@pytest.fixture
def desk(drawn: Path, trained: Path, searchable: Path, tmp_path: Path, monkeypatch) -> Path:
    """A folder to read documentation in: the files that it names, of drawn people."""
    monkeypatch.chdir(tmp_path)
    for name in ("benchmarks", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/Market-1501-v15.09.15").symlink_to(drawn)
    (tmp_path / "my_crops").symlink_to(drawn / "bounding_box_train")
    shutil.copytree(searchable, tmp_path, dirs_exist_ok=True)
    shutil.copy(trained / "checkpoints/last.ckpt", tmp_path)
    shutil.copytree(trained, tmp_path / "runs/market1501/version_0")
    (tmp_path / "my_labels").mkdir()
    (tmp_path / "my_labels/candidate1.yaml").write_text("pseudo_labels: {labeler: DBSCAN}\n")
    return tmp_path


@pytest.fixture
def made_small(monkeypatch) -> None:
    """Makes trainings that Python starts such of two steps, whatever their options."""
    large = "resnet50.tv_in1k"
    small = {
        "PartNetwork": lambda given: {
            "weights": None, "norm_batch_size": 8,
            **({"backbone": "resnet10t"} if given.get("backbone", large) == large else {}),
        },
        "PPLRDataModule": lambda given: {
            "image_size": (64, 32), "batch_size": 16, "iterations": 2, "num_workers": 0,
        },
        "PPLRModule": lambda given: {"agreement_k": 4},
        "DBSCAN": lambda given: {"k1": 6, "k2": 2, "eps": 0.6, "min_samples": 2},
    }  # fmt: skip
    for name, options in small.items():
        monkeypatch.setattr(pplr_lightning, name, _Smaller(getattr(pplr_lightning, name), options))
    short = {"max_epochs": 1, "check_val_every_n_epoch": 1, "accelerator": "cpu", "logger": False}
    monkeypatch.setattr("lightning.pytorch.Trainer", _Smaller(Trainer, lambda given: short))


@pytest.fixture
def three_threads():
    """More than the tests else have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(threads)
