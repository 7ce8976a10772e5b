from __future__ import annotations

import getpass
import json
import platform
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from pplr_lightning import PPLRDataModule, __version__
from pplr_lightning.callbacks.environment import cpu_name, describe_environment
from pplr_lightning.data import Market1501


def make(**options):
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **options)


def test_tells_versions_machine_and_data(drawn):
    trainer = make()
    trainer.datamodule = data = PPLRDataModule(Market1501(drawn))
    data.setup("fit")
    found = describe_environment(trainer)
    assert found["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert found["versions"]["pplr-lightning"] == __version__
    assert found["versions"]["python"] == platform.python_version()
    assert found["hardware"]["processes"] == found["hardware"]["nodes"] == 1
    assert found["hardware"]["device"] == "cpu"
    assert found["hardware"]["precision"] == "32-true"
    assert found["data"]["data set"] == "Market1501"
    assert found["data"]["training images"] == len(data.train_samples)
    assert found["data"]["identities known of training images"] == 12
    assert found["data"]["query images"] == len(data.splits.query)
    text = json.dumps(found)  # plain values only
    assert str(Path.home()) not in text
    assert platform.node() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert str(drawn) not in text


def test_without_a_data_module_of_ours():
    assert describe_environment(make())["data"] == {}


def test_name_of_the_processor(tmp_path):
    table = tmp_path / "cpuinfo"
    table.write_text("processor : 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name : other\n")
    assert cpu_name(table) == "Some CPU @ 2 GHz"
    assert cpu_name(tmp_path / "none") == (platform.processor() or platform.machine())
