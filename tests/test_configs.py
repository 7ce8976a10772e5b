from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pplr_lightning.cli import PPLRCLI, TrainingCLI, run_cli
from pplr_lightning.simclr import SimCLRModule

from .conftest import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_every_config_trains(config: Path, drawn, tmp_path):
    """Each file as it stands, but for data, image size, batch, backbone and length."""
    simclr = config.name.startswith("simclr")
    command = {"cli": PPLRCLI, "module": SimCLRModule} if simclr else {"cli": TrainingCLI}
    labels = ["k1=6", "k2=2", "agreement_k=4", "min_samples=2", "eps=0.6"]
    small = [
        "--data.dataset=pplr_lightning.data.Market1501",
        f"--data.dataset.init_args.root={drawn}",
        "--data.image_size=[64,32]",
        "--data.batch_size=16",
        "--data.iterations=2",
        "--data.num_workers=0",
        "--model.backbone=resnet10t",
        "--model.pretrained=false",
        "--model.norm_batch_size=8",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=1",
        "--trainer.precision=32-true",
        f"--trainer.logger.init_args.save_dir={tmp_path}",
        *([] if simclr else [f"--pseudo_labels.{label}" for label in labels]),
    ]
    trainer = run_cli(["fit", "--config", str(config), *small], **command).trainer
    assert trainer.global_step == 2
    assert Path(trainer.log_dir, "checkpoints/last.ckpt").is_file()


def test_market1501_holds_the_papers_values():
    config = yaml.safe_load((ROOT / "configs/market1501.yaml").read_text())
    assert config["data"]["batch_size"] == 16 * config["data"]["instances"] == 64
    assert config["data"]["image_size"] == [384, 128]
    assert config["trainer"]["max_epochs"] == 50
    assert config["pseudo_labels"]["eps"] == 0.5
    assert config["model"]["norm_batch_size"] == 16
