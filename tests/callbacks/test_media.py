"""What loggers have got of a run, read back from what they wrote."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("wandb")

import wandb
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pplr_lightning.callbacks.figures import NAMES
from pplr_lightning.cli import main

from ..conftest import CHECKPOINT, run_options
from ..test_cli import NAMES as SCALARS
from ..wandb_file import records

HISTOGRAMS = {
    f"histograms/{name}" for name in ("cluster_size", "agreement_part1", "agreement_part2")
}
FIGURES = {f"figures/{name}" for name in NAMES}
CONFIG = """
data:
  eval_batch_size: ${{.batch_size}}
trainer:
  logger:
    - class_path: WandbLogger
      init_args: {{project: reid, save_dir: {folder}, id: run1, log_model: true}}
    - class_path: TensorBoardLogger
      init_args: {{save_dir: {folder}, name: board}}
    - class_path: CSVLogger
      init_args: {{save_dir: {folder}, name: table}}
"""


@pytest.fixture(scope="module", autouse=True)
def _offline(tmp_path_factory):
    """Keeps the artifacts, which wandb copies into folders of its own, out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield


@pytest.fixture(scope="module")
def folder(drawn, tmp_path_factory) -> Path:
    """Two epochs with three loggers; then the run goes on for a third."""
    folder = tmp_path_factory.mktemp("media")
    config = folder / "loggers.yaml"
    config.write_text(CONFIG.format(folder=folder))
    options = [one for one in run_options(drawn, folder) if "logger.init_args" not in one]
    names = f"--figures.names={json.dumps(NAMES)}"
    for more in ([], ["--ckpt_path=last", "--trainer.max_epochs=3"]):
        main(["fit", *options, *CHECKPOINT, f"--config={config}", names, *more])
        wandb.finish()
    return folder


@pytest.fixture(scope="module")
def first(folder) -> list:
    """The records of the first of the two runs of one id."""
    files = sorted(folder.glob("wandb/offline-run-*/run-run1.wandb"))
    assert len(files) == 2
    return list(records(files[0]))


def history(found) -> list[dict]:
    rows = [one.history for one in found if one.WhichOneof("record_type") == "history"]
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row.item}
        for row in rows
    ]


class TestWandb:
    def test_gets_every_scalar(self, first):
        assert set().union(*history(first)) >= SCALARS
        clusters = [row["labels/clusters"] for row in history(first) if "labels/clusters" in row]
        assert len(clusters) == 2

    def test_gets_every_figure_with_its_caption(self, first, folder):
        rows = history(first)
        media = min(folder.glob("wandb/offline-run-*/files"))  # of the first of two runs
        captions = json.loads((folder / "reid/run1/figures/captions.json").read_text("utf-8"))
        for name in FIGURES:
            (row,) = [row for row in rows if f"{name}/filenames" in row]
            (file,) = row[f"{name}/filenames"]
            drawn = folder / "reid/run1" / f"{name}-epoch1.png"
            assert (media / file).read_bytes() == drawn.read_bytes()
            assert row[f"{name}/captions"] == [captions[drawn.name]]
            assert row["trainer/global_step"] == 6

    def test_gets_histograms_of_every_epoch(self, first):
        rows = history(first)
        for name in HISTOGRAMS:
            found = [row for row in rows if f"{name}/values" in row]
            assert [row["trainer/global_step"] for row in found] == [0, 3]
            assert all(row[f"{name}/_type"] == "histogram" for row in found)
        agreement = next(row for row in rows if "histograms/agreement_part1/values" in row)
        assert sum(agreement["histograms/agreement_part1/values"]) == 96  # images

    def test_gets_the_resolved_config(self, first):
        updates = [u for one in first if one.HasField("config") for u in one.config.update]
        config = {update.key: json.loads(update.value_json) for update in updates}
        assert config["data"]["eval_batch_size"] == config["data"]["batch_size"] == 16
        assert config["pseudo_labels"]["labeler"]["init_args"]["k1"] == 6
        assert config["figures"]["names"] == list(NAMES)
        assert config["trainer"]["max_epochs"] == 2
        assert config["seed_everything"] == 0
        assert config["model"]["init_args"]["network"]["init_args"]["backbone"] == "test_resnet"
        assert config["beta"] == 0.5  # the module's own, as Lightning logs them

    def test_gets_the_checkpoint_as_an_artifact(self, first):
        (artifact,) = [one.artifact for one in first if one.HasField("artifact")]
        assert (artifact.type, artifact.name) == ("model", "model-run1")
        (file,) = artifact.manifest.contents
        assert file.path == "model.ckpt"
        assert torch.load(file.local_path, weights_only=True)["epoch"] == 1

    def test_goes_on_in_the_same_run(self, folder):
        second = list(records(max(folder.glob("wandb/offline-run-*/run-run1.wandb"))))
        (run,) = [one.run for one in second if one.HasField("run")]
        assert (run.run_id, run.project) == ("run1", "reid")
        clusters = [row["epoch"] for row in history(second) if "labels/clusters" in row]
        assert clusters == [2]
        captions = json.loads((folder / "reid/run1/figures/captions.json").read_text("utf-8"))
        epochs = {name.split("-epoch")[1] for name in captions}
        assert epochs == {"1.png", "2.png"}
        assert "3 epochs" in captions["label_quality-epoch2.png"]
        assert (folder / "reid/run1/config.yaml").is_file()


def test_tensorboard_gets_scalars_histograms_and_figures(folder):
    board = EventAccumulator(str(folder / "board/version_0"), {"images": 0, "histograms": 0})
    board.Reload()
    tags = board.Tags()
    assert set(tags["scalars"]) >= SCALARS
    assert set(tags["images"]) == FIGURES
    assert set(tags["histograms"]) == HISTOGRAMS
    for name in FIGURES:
        (event,) = board.Images(name)
        with Image.open(folder / "reid/run1" / f"{name}-epoch1.png") as image:
            assert (event.width, event.height) == image.size
        assert event.step == 6
    sizes = board.Histograms("histograms/cluster_size")
    assert [event.step for event in sizes] == [0, 3]
    clusters = [event.value for event in board.Scalars("labels/clusters")]
    assert [event.histogram_value.num for event in sizes] == clusters


def test_csv_gets_the_scalars(folder):
    with (folder / "table/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) >= SCALARS
    assert not any(name.startswith(("figures/", "histograms/")) for name in rows[0])
