from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import torch
from pplr_lightning.functional import cross_agreement
from pplr_lightning.labelers import DBSCAN, CameraDBSCAN, Space
from pplr_lightning.functional import agreement, jaccard_loops, neighbor_lists, retrieval
from pplr_lightning.functional.warm_up import compile_loops
from pplr_lightning.evaluation.metric import ReIDRetrieval

LOOPS = (
    neighbor_lists.dot_loop, jaccard_loops.mutual, jaccard_loops.expand, jaccard_loops.minima,
    agreement.count_shared, retrieval.score_rows,
)
assert not any(loop.signatures for loop in LOOPS)
assert compile_loops() > 0
compiled = [loop.signatures.copy() for loop in LOOPS]
assert all(compiled)
torch.manual_seed(0)
features = torch.randn(40, 16).repeat_interleave(8, dim=0) + 0.4 * torch.randn(320, 16)
features[-4:] = features[:4]
features = torch.nn.functional.normalize(features, dim=1)
for options in ({"k1": 12, "agreement_k": 5}, {"k1": 6, "agreement_k": 10, "k2": 1}):
    space = Space.of(features, cameras=torch.arange(320) % 7)
    for labeler in (DBSCAN(eps=0.6, k1=options["k1"], k2=options.get("k2", 6)), CameraDBSCAN()):
        labeler.label(space)
    cross_agreement(features, features[:, :, None], k=options["agreement_k"])
metric, ids = ReIDRetrieval(rerank=True), torch.arange(320)
metric.update(features, ids % 9, ids % 2, ids < 30, ids)
metric.compute()
assert [loop.signatures for loop in LOOPS] == compiled
"""


def test_nothing_is_compiled_after_it():
    """In a process of its own, where nothing was compiled before."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
