"""Figures of real, small trainings."""

from __future__ import annotations

import json
import shutil
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from pplr_lightning import PPLRDataModule, PPLRModule, PseudoLabeling, RetrievalEvaluation
from pplr_lightning.callbacks import Figures, snapshot
from pplr_lightning.callbacks import figures as figures_module
from pplr_lightning.callbacks.figures import NAMES
from pplr_lightning.callbacks.shared import History
from pplr_lightning.data import ImageFolder, Market1501
from pplr_lightning.labelers import DBSCAN
from pplr_lightning.networks import PartNetwork
from pplr_lightning.visualization.layout import new_page
from pplr_lightning.weights.checkpoints import WholeCheckpointIO

from ..generators import generators


class Save(Callback):
    """Saves at the end of epoch 0 and in the middle of epoch 1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.folder / "end.ckpt")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 0):
            trainer.save_checkpoint(self.folder / "middle.ckpt")


class Removes(Callback):
    """Removes the training images when there is nothing left to train."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            shutil.rmtree(self.folder)


class Watched(Figures):
    """Keeps how many of its calls drew a random number of a global generator."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.calls, self.used = 0, 0

    @property
    def state_key(self) -> str:
        return "Figures"  # for others to go on with

    def on_train_batch_start(self, *args):
        self.watch(super().on_train_batch_start, *args)

    def on_train_epoch_end(self, *args):
        self.watch(super().on_train_epoch_end, *args)

    def watch(self, hook, *args):
        before = generators()
        hook(*args)
        self.calls += 1
        self.used += generators() != before


class Run:
    """A training that was run: what it ended with and what it drew."""

    def __init__(
        self, dataset, folder, figures=None, *, callbacks=(), ckpt_path=None, model=None, **options
    ):
        seed_everything(3, verbose=False)
        network = PartNetwork("resnet10t", weights=None, num_parts=2, norm_batch_size=8)
        self.module = PPLRModule(network, max_clusters=64, agreement_k=4, **(model or {}))
        self.module.optimizer = partial(torch.optim.Adam, lr=2e-4, weight_decay=5e-4)
        data = PPLRDataModule(
            dataset, image_size=(64, 32), batch_size=16, iterations=2, num_workers=0, padding=3,
            seed=3,
        )  # fmt: skip
        labels = PseudoLabeling(DBSCAN(k1=6, k2=2, min_samples=2))
        # Figures stands before PseudoLabeling: the order must not matter.
        used = [*([figures] if figures else []), labels, RetrievalEvaluation(), *callbacks]
        logger = CSVLogger(folder, name="run")
        self.trainer = Trainer(
            accelerator="cpu", logger=logger, default_root_dir=folder, log_every_n_steps=1,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=used, plugins=[WholeCheckpointIO()], **{"max_epochs": 2, **options},
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=r"figures: .* is left out")
            self.trainer.fit(self.module, data, ckpt_path=ckpt_path)
        self.generators = generators()
        self.figures = figures
        self.folder = Path(logger.log_dir, "figures")
        self.labels = History.of(self.trainer).under("labels/")

    @property
    def drawn(self) -> set[str]:
        return {path.name for path in self.folder.glob("*.png")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("figures")


@pytest.fixture(scope="module")
def whole(drawn, folder):
    """Two epochs, each drawn."""
    return Run(Market1501(drawn), folder, Watched(every_n_epochs=1), callbacks=[Save(folder)])


def test_draws_every_figure_of_every_epoch(whole):
    assert whole.drawn == {f"{name}-epoch{epoch}.png" for name in NAMES for epoch in range(2)}
    captions = json.loads((whole.folder / "captions.json").read_text(encoding="utf-8"))
    assert set(captions) == whole.drawn
    for name, caption in captions.items():
        with Image.open(whole.folder / name) as image:
            assert image.info["Description"] == caption
    assert "all 96 images" in captions["agreement-epoch1.png"]
    assert "3 of 15 queries" in captions["ranking-epoch0.png"]
    assert "2 epochs" in captions["label_quality-epoch1.png"]


def test_history_is_what_was_logged(whole):
    logged = whole.trainer.callback_metrics
    assert [row["epoch"] for row in whole.labels] == [0, 1]
    last = whole.labels[-1]
    names = {name.removeprefix("labels/") for name in logged if name.startswith("labels/")}
    assert names == set(last) - {"epoch"}
    assert {"agreement_part1", "agreement_part2", "ari"} <= names
    for name in names:
        assert logged[f"labels/{name}"].item() == pytest.approx(last[name], abs=1e-6)


def test_changes_nothing_of_the_training(whole, drawn, folder):
    without = Run(Market1501(drawn), folder)
    assert not without.folder.exists()
    weights, expected = whole.module.state_dict(), without.module.state_dict()
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(weights[name], value), name
    assert whole.generators == without.generators
    assert (whole.figures.calls, whole.figures.used) == (6, 0)
    modes = [[one.training for one in run.module.modules()] for run in (whole, without)]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("moment", ["end", "middle"])
def test_goes_on_to_the_very_pictures(whole, drawn, folder, moment):
    checkpoint = folder / f"{moment}.ckpt"
    state = torch.load(checkpoint, weights_only=True)["callbacks"]["Figures"]
    assert state["before"]["name"] == "first labelling, epoch 0"
    figures = Figures(every_n_epochs=1)
    run = Run(Market1501(drawn), folder, figures, ckpt_path=checkpoint)
    assert run.labels == whole.labels
    assert run.drawn == {f"{name}-epoch1.png" for name in NAMES}
    for name in run.drawn:
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_a_run_of_few_epochs_is_drawn_at_its_end(drawn, tmp_path):
    figures = Figures(names=("label_quality", "embedding"), images=20)
    run = Run(Market1501(drawn), tmp_path, figures)
    assert run.drawn == {"label_quality-epoch1.png", "embedding-epoch1.png"}
    captions = json.loads((run.folder / "captions.json").read_text(encoding="utf-8"))
    assert "20 of 96 training images, sampled" in captions["embedding-epoch1.png"]
    assert len(figures.before.points) == 20


@pytest.mark.parametrize("options", [{"fast_dev_run": 1}, {}])
def test_draws_nothing_in_a_trial_or_without_names(drawn, tmp_path, options):
    figures = Figures() if options else Figures(names=())
    run = Run(Market1501(drawn), tmp_path, figures, **{"max_epochs": 1, **options})
    assert not list(tmp_path.rglob("figures"))
    assert figures.before is None
    assert run.trainer.global_step > 0


def test_images_that_vanish_do_not_end_the_run(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "set")
    run = Run(
        Market1501(tmp_path / "set"), tmp_path, Figures(), max_epochs=1,
        callbacks=[Removes(tmp_path / "set")],
    )  # fmt: skip
    assert run.trainer.global_step == 2
    assert run.drawn == {f"{name}-epoch0.png" for name in NAMES}


def test_without_identities_and_query(drawn, tmp_path):
    crops = ImageFolder(drawn / "bounding_box_train")
    run = Run(crops, tmp_path, Figures(), max_epochs=1)
    assert run.drawn == {f"{name}-epoch0.png" for name in NAMES if name != "ranking"}


def test_without_pglr_there_is_no_refinement(drawn, tmp_path):
    names = ("refinement", "label_quality")
    run = Run(
        Market1501(drawn), tmp_path, Figures(names=names), max_epochs=1, model={"pglr": False}
    )
    assert run.drawn == {"label_quality-epoch0.png"}


def test_a_figure_that_cannot_be_drawn_is_a_warning(drawn, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise LookupError("no colour left")

    monkeypatch.setattr(snapshot, "clusters_figure", fail)
    figures = Figures(names=("clusters", "label_quality"))
    with pytest.raises(UserWarning, match="clusters is left out, LookupError: no colour left"):
        Run(Market1501(drawn), tmp_path, figures, max_epochs=1)
    monkeypatch.setattr(warnings, "filterwarnings", lambda *_, **__: None)
    with pytest.warns(UserWarning, match="clusters is left out, LookupError: no colour left"):
        run = Run(Market1501(drawn), tmp_path, figures, max_epochs=1)
    assert run.drawn == {"label_quality-epoch0.png"}


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draws an epoch of an empty figure, without a training."""
    page = new_page(4, 3, title="A title", caption="A caption")[0]
    empty = SimpleNamespace(figures=lambda *_, **__: {"ranking": lambda: page})
    monkeypatch.setattr(snapshot, "Snapshot", lambda *_, **__: empty)
    monkeypatch.setattr(figures_module, "run_folder", lambda _: tmp_path)

    def draw(epoch):
        trainer = SimpleNamespace(
            is_global_zero=True, loggers=[], global_step=0, current_epoch=epoch
        )
        Figures(names=("ranking",), every_n_epochs=1).on_train_epoch_end(trainer, None)

    return draw


def test_a_kill_leaves_the_captions_of_before(draw, tmp_path, monkeypatch):
    file = tmp_path / "figures/captions.json"
    draw(0)
    draw(1)
    captions = {f"ranking-epoch{epoch}.png": "A caption" for epoch in range(2)}
    assert json.loads(file.read_text()) == captions

    def stops(self, text, **options):
        self.write_bytes(text[:20].encode())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", stops)
        with pytest.raises(KeyboardInterrupt):
            draw(2)
    assert json.loads(file.read_text()) == captions
    draw(3)
    assert json.loads(file.read_text()) == {**captions, "ranking-epoch3.png": "A caption"}


@pytest.mark.parametrize("text", ["{", "5", "[1]", "null"])
def test_captions_that_cannot_be_read_do_not_end_the_run(draw, tmp_path, text):
    file = tmp_path / "figures/captions.json"
    file.parent.mkdir()
    file.write_text(text)
    draw(0)
    assert json.loads(file.read_text()) == {"ranking-epoch0.png": "A caption"}


def test_only_rank_zero_looks_at_anything():
    figures, other = Figures(every_n_epochs=1), SimpleNamespace(is_global_zero=False)
    other.current_epoch = 0  # and nothing else that could be asked for
    figures.on_train_batch_start(other, None, None, 0)
    figures.on_train_epoch_end(other, None)
    figures.on_train_end(other, None)
    assert figures.before is None


def test_two_processes_draw_once(run_several, run_args, tmp_path):
    names = '--figures.names=["ranking","embedding","label_quality","refinement"]'
    done = run_several(
        2, "fit", *run_args, "--trainer.devices=2", "--trainer.strategy=ddp",
        "--trainer.max_epochs=1", names,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stderr
    drawn = list(tmp_path.rglob("*.png"))
    assert len(drawn) == 4
    assert {path.parent for path in drawn} == {tmp_path / "demo/version_0/figures"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_epochs": 0}, r"figures.every_n_epochs must be at least 1, got 0"),
        ({"images": 0}, r"figures.images must be at least 1, got 0"),
        ({"part": 0}, r"figures.part must be at least 1, got 0"),
        (
            {"names": ("rankings",)},
            r"figures.names: no figure 'rankings'; there are ranking, ",
        ),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Figures(**options)


def test_a_part_that_the_model_has_not(drawn, tmp_path):
    with pytest.raises(ValueError, match=r"figures.part=3: the network has 2 parts"):
        Run(Market1501(drawn), tmp_path, Figures(part=3))


def test_another_run_has_a_start_of_its_own(drawn, tmp_path):
    figures = Figures(names=("label_quality", "embedding"), images=20)
    Run(Market1501(drawn), tmp_path, figures, max_epochs=1)
    first = figures.before
    figures.on_train_epoch_end(SimpleNamespace(current_epoch=7), None)  # of a run that broke off
    run = Run(Market1501(drawn), tmp_path, figures, max_epochs=1)
    assert figures.before is not first
    assert run.drawn == {"label_quality-epoch0.png", "embedding-epoch0.png"}
    captions = json.loads((run.folder / "captions.json").read_text(encoding="utf-8"))
    assert "start of 1 epoch." in captions["label_quality-epoch0.png"]


def test_wrong_partners():
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        callbacks=[Figures()],
    )  # fmt: skip
    with pytest.raises(
        MisconfigurationException, match=r"PPLRModule or its kin learns from a PPLRDataMod"
    ):
        trainer.fit(BoringModel())
