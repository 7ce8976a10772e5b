from __future__ import annotations

import compare_backbones as benchmark
import pytest
import torch

# A project's file: the model is ours, as whoever has the names of its weights would build it.
OSNET = """
from pplr_lightning.networks.backbone import create_backbone


def osnet_x0_25(pretrained):
    model = create_backbone("osnet_x0_25", (256, 128))
    model.featuremaps = {compute}
    return model
"""


@pytest.fixture
def clone(tmp_path):
    def write(compute):
        file = tmp_path / "deep-person-reid/torchreid/models/osnet.py"
        file.parent.mkdir(parents=True)
        file.write_text(OSNET.format(compute=compute))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("compute", "share"), [("model.forward", 0), ("lambda x: 2 * model(x)", 0.5)]
)
def test_difference_is_a_share_of_the_largest_value(clone, compute, share):
    (small,) = (one for one in benchmark.COMPARISONS if one.backbone == "osnet_x0_25")
    assert benchmark.difference(small, clone(compute)) == pytest.approx(share, abs=1e-6)


def test_projects_that_are_not_there_are_left_out(tmp_path, capsys):
    benchmark.main([str(tmp_path), "--double"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == len(benchmark.COMPARISONS)
    assert all(f"not in {tmp_path}" in row for row in rows)
    assert torch.get_default_dtype() == torch.float32
