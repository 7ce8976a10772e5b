from __future__ import annotations

import pytest
import torch

from pplr_lightning import DCMIPModule, ICEModule, ISEModule, MMTModule, PPLRModule, SpCLModule
from pplr_lightning.labelers import Consensus, SelfPaced

from .small_runs import fit, network

SELF_PACED = {"k1": 6, "k2": 2, "gap": 0.1, "min_samples": 2}


@pytest.mark.parametrize(
    ("kind", "options", "data"),
    [
        (PPLRModule, {"agreement_k": 4, "max_clusters": 64, "aals_start_epoch": 1}, {}),
        (MMTModule, {}, {"views": 2}),
        (ICEModule, {}, {"views": 2, "plain_view": True}),
        (ISEModule, {}, {}),
        (DCMIPModule, {"instances": 2}, {}),
        (SpCLModule, {}, {"repeat_images": False}),
    ],
)
def test_a_method_trains_on_refined_labels(drawn, kind, options, data):
    torch.manual_seed(0)
    if kind is SpCLModule:
        data = {**data, "labeler": SelfPaced(**SELF_PACED)}
    module = kind(network(num_parts=2 if kind is PPLRModule else 0), **options)
    fit(module, drawn, refinement=Consensus(), **data)
    labels = module.trainer.datamodule.pseudo_labels
    soft, clustered = labels.columns["soft_labels"], labels.classes >= 0
    assert soft.shape == (len(clustered), labels.num_classes)
    torch.testing.assert_close(soft[clustered].sum(1), torch.ones(int(clustered.sum())))
    assert module.losses["train/loss"].isfinite()
