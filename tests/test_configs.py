from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from omegaconf import OmegaConf

from pplr_lightning.commands.training import run_cli

from .conftest import ROOT
from .data.trees import as_msmt17, as_veri776

OVERLAYS = sorted((ROOT / "configs/overlays").glob("*.yaml"))
# The config over which each is laid, as its own first lines say.
BASES = {
    file: ROOT / re.search(r"--config (configs/\w+\.yaml)", file.read_text())[1]
    for file in OVERLAYS
}
CONFIGS = [*sorted((ROOT / "configs").glob("*.yaml")), *OVERLAYS]
# The rows of the paper's ablation and what they change.
ABLATION = {
    "baseline": {"aals": False, "pglr": False},
    "aals": {"aals": True, "pglr": False},
    "pglr": {"aals": False, "pglr": True},
    "both": {"aals": True, "pglr": True},
}
DBSCAN = [f"--pseudo_labels.labeler.{o}" for o in ("k1=6", "k2=2", "min_samples=2", "eps=0.6")]
DATA_YAML = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/data.md").read_text(), flags=re.DOTALL)


@pytest.mark.parametrize(
    "config",
    # On MSMT17 they are the same but for numbers and the reader, which one of them shows.
    [
        pytest.param(file, marks=[pytest.mark.slow] * ("_msmt17" in file.stem), id=file.name)
        for file in CONFIGS
    ],
)
def test_every_config_trains(config: Path, drawn, tmp_path):
    """Each file as it stands, but for root, image size, batch, backbone and length."""
    small = small_options(config, drawn, tmp_path)
    folder = f"--trainer.logger.init_args.save_dir={tmp_path}"
    trainer = run_cli(["fit", *files(config), *small, folder]).trainer
    assert trainer.global_step == 2
    assert trainer.lightning_module.network.image_size == (64, 32)  # linked to the data's
    optimizer = read(config).get("optimizer", {"class_path": "torch.optim.Adam"})["class_path"]
    assert type(trainer.optimizers[0]).__name__ == optimizer.split(".")[-1]
    assert Path(trainer.log_dir, "checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize("row", ABLATION)
def test_every_row_of_the_ablation_trains(row, drawn, tmp_path, monkeypatch):
    """The two files as they stand, but for root, image size, batch, backbone and length."""
    monkeypatch.chdir(tmp_path)  # the folder of results is the row's own
    config = ROOT / "configs/market1501.yaml"
    small = small_options(config, drawn, tmp_path)
    trainer = run_cli(["fit", "--config", str(config), *override(row), *small]).trainer
    assert trainer.global_step == 2
    assert Path(f"runs/ablation/{row}/market1501/version_0/checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize("base", ["market1501", "demo"])
def test_a_row_of_the_ablation_changes_what_it_names(base, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", lambda *args, **given: None)
    config = ["fit", "--config", str(ROOT / f"configs/{base}.yaml")]
    plain = run_cli(config).config.fit.as_dict()
    for row, changed in ABLATION.items():
        cli = run_cli([*config, *override(row)])
        assert (cli.model.aals, cli.model.beta < 1) == (changed["aals"], changed["pglr"])
        options = {**plain["model"]["init_args"], **changed}
        expected = {**plain, "model": {**plain["model"], "init_args": options}}
        found = cli.config.fit.as_dict()
        logger = found["trainer"]["logger"]["init_args"]
        assert (logger.pop("save_dir"), logger["name"]) == (f"runs/ablation/{row}", base)
        logger["save_dir"] = "runs"
        expected.pop("config"), found.pop("config")
        assert found == expected


def test_the_ablation_has_no_other_rows():
    assert {file.stem for file in (ROOT / "configs/ablation").iterdir()} == set(ABLATION)


def override(row: str) -> list[str]:
    return ["--config", str(ROOT / f"configs/ablation/{row}.yaml")]


def both(config: Path) -> list[Path]:
    """A config, and before it the one that it is laid over."""
    return [BASES[config], config] if config in BASES else [config]


def files(config: Path) -> list[str]:
    """The options that name them."""
    return [f"--config={file}" for file in both(config)]


def read(config: Path) -> Any:
    """What they say together."""
    return OmegaConf.merge(*(OmegaConf.load(file) for file in both(config)))


def small_options(config: Path, drawn: Path, folder: Path) -> list[str]:
    """Makes a training of two steps of a config."""
    options = read(config)
    labeler = options["pseudo_labels"]["labeler"]
    as_it_is = isinstance(labeler, str) or "auto" in str(labeler)
    return [
        *dataset_options(config, drawn, folder / "set"),
        *([] if as_it_is else DBSCAN[: 2 if "Linkage" in str(labeler) else None]),
        *(["--model.agreement_k=4"] if options["model"]["class_path"] == "PPLRModule" else []),
        "--figures.names=[]",
        "--data.image_size=[64,32]",
        "--data.batch_size=16",
        "--data.iterations=2",
        "--data.num_workers=0",
        f"--model.network.backbone={'test_vit' if 'vit' in config.stem else 'resnet10t'}",
        "--model.network.weights=null",
        "--model.network.norm_batch_size=8",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=1",
        "--trainer.precision=32-true",
    ]


def dataset_options(config: Path, drawn: Path, folder: Path) -> list[str]:
    """Points a config's own reader to the drawn set, in the layout that it reads."""
    reader = read(config)["data"]["dataset"]["class_path"].split(".")[-1]
    if reader == "SyntheticReID":  # would draw a larger set
        return [
            "--data.dataset=pplr_lightning.data.MarketLayout",
            f"--data.dataset.init_args.root={drawn}",
        ]
    layouts = {"MSMT17": as_msmt17, "VeRi776": as_veri776}
    root = layouts[reader](drawn, folder) if reader in layouts else drawn
    return [f"--data.dataset.init_args.root={root}"]


@pytest.mark.parametrize("name", ["market1501", "overlays/msmt17"])
def test_person_configs_hold_the_papers_values(name):
    config = read(ROOT / f"configs/{name}.yaml")
    assert config["data"]["batch_size"] == 16 * config["data"]["instances"] == 64
    assert config["data"]["image_size"] == [384, 128]
    assert config["trainer"]["max_epochs"] == 50
    assert config["pseudo_labels"]["labeler"]["init_args"]["eps"] == 0.5
    assert config["model"]["init_args"]["network"]["norm_batch_size"] == 16


def test_veri776_holds_the_authors_values():
    config = read(ROOT / "configs/overlays/veri776.yaml")
    assert config["data"]["batch_size"] == 8 * config["data"]["instances"] == 64
    assert config["data"]["image_size"] == [256, 256]
    assert config["pseudo_labels"]["labeler"]["init_args"]["eps"] == 0.7


class TestJoined:
    """The list of data sets, as the documentation writes it."""

    @pytest.fixture
    def joined(self, drawn, tmp_path) -> str:
        text = next(t for t in DATA_YAML if "data.Joined" in t)
        text = text.replace("data/Market-1501-v15.09.15", str(drawn))
        text = text.replace("data/MSMT17_V1", str(as_msmt17(drawn, tmp_path / "msmt17")))
        file = tmp_path / "joined.yaml"
        file.write_text(text)
        return f"--config={file}"

    def test_trains_on_all_and_evaluates_one(self, run, run_args, joined, drawn):
        data = run("fit", *run_args, joined, "--trainer.max_epochs=1").datamodule
        images = len(list((drawn / "bounding_box_train").iterdir()))
        assert len(data.splits.train) == 2 * images
        assert {Path(sample.path).parents[1] for sample in data.splits.query} == {drawn}
        persons = {sample.person_id for sample in data.splits.train}
        assert len(persons) == 2 * len({sample.person_id for sample in data.splits.train[:images]})

    def test_evaluates_another(self, run, run_args, joined, tmp_path):
        data = run("test", *run_args, joined, "--data.dataset.init_args.evaluate=1").datamodule
        assert all("msmt17" in sample.path for sample in data.splits.query)

    def test_evaluates_a_set_alone(self, run, run_args, joined, tmp_path):
        data = run(
            "test",
            *run_args,
            joined,
            "--data.dataset=pplr_lightning.data.MSMT17",
            f"--data.dataset.init_args.root={tmp_path / 'msmt17'}",
        ).datamodule
        assert all("msmt17" in sample.path for sample in data.splits.query)
