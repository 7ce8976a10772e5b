from __future__ import annotations

import torch

from pplr_lightning import PseudoLabeling
from pplr_lightning.functional import agreement, neighbors, retrieval_loops
from pplr_lightning.functional import jaccard_loops as loops
from pplr_lightning.functional.warm_up import compile_loops
from pplr_lightning.metrics import ReIDRetrieval

LOOPS = (
    neighbors._entry_dots,
    loops.mutual,
    loops.expand,
    loops.average,
    loops.minima,
    agreement._count_shared,
    retrieval_loops.score_rows,
)


def test_nothing_is_compiled_after_it(draw_features):
    assert compile_loops() >= 0
    compiled = [loop.signatures.copy() for loop in LOOPS]
    assert all(compiled)
    features = draw_features(0, 300, duplicates=4)
    for options in ({"k1": 12, "agreement_k": 5}, {"k1": 6, "agreement_k": 10, "k2": 1}):
        PseudoLabeling(eps=0.6, **options).label(features, features[:, :, None])
    metric = ReIDRetrieval()
    ids = torch.arange(300)
    metric.update(features, ids % 9, ids % 2, ids < 30, ids)
    metric.compute()
    assert [loop.signatures for loop in LOOPS] == compiled
