from __future__ import annotations

from pplr_lightning import PseudoLabeling
from pplr_lightning.functional import agreement, kernels, neighbors
from pplr_lightning.functional.warm_up import compile_loops

LOOPS = (
    neighbors._entry_dots,
    kernels.mutual,
    kernels.expand,
    kernels.average,
    kernels.minima,
    agreement._count_shared,
)


def test_nothing_is_compiled_after_it(draw_features):
    assert compile_loops() >= 0
    compiled = [loop.signatures.copy() for loop in LOOPS]
    assert all(compiled)
    features = draw_features(0, 300, duplicates=4)
    for options in ({"k1": 12, "agreement_k": 5}, {"k1": 6, "agreement_k": 10, "k2": 1}):
        PseudoLabeling(eps=0.6, **options).label(features, features[:, :, None])
    assert [loop.signatures for loop in LOOPS] == compiled
