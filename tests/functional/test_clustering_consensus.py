from __future__ import annotations

import pytest
import torch

from pplr_lightning import functional as F

from .test_prototypes import assert_equal


@pytest.mark.parametrize("name", ["rlcc_toy", "rlcc_consensus"])
def test_the_mapping_is_the_authors(reference, name):
    arrays = reference(name)
    mapping = F.cluster_mapping(arrays["previous"], arrays["current"]).toarray()
    assert_equal(torch.from_numpy(mapping), arrays["mapping"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["rlcc_generations", "rlcc_generations_mixed"])
def test_soft_labels_are_the_authors(reference, name, dtype):
    """Of three epochs; what an image was is the prediction alone in the first of them."""
    arrays = reference(name)
    for epoch in (1, 2, 3):
        previous, current = (arrays[f"labels_{epoch - back}"] for back in (1, 0))
        soft = F.propagate_labels(
            arrays[f"features_{epoch}"].to(dtype),
            arrays[f"centers_{epoch - 1}"].to(dtype),
            previous,
            F.cluster_mapping(previous, current),
            scale=float(arrays["pred_temp"]),
            alpha=float(arrays["alpha"]) if epoch > 1 else 0.0,
            beta=float(arrays["beta"]),
        )
        assert soft.dtype == dtype
        assert_equal(soft, arrays[f"soft_{epoch}"])


def test_images_without_a_cluster():
    """One of none before has its prediction alone; what was of a cluster that is gone is lost."""
    mapping = F.cluster_mapping(torch.tensor([0, 1, 1, -1]), torch.tensor([0, -1, -1, 0]))
    assert mapping.toarray().tolist() == [[1.0], [0.0]]
    previous, rows = torch.tensor([0, 1, -1]), torch.eye(2)[[0, 0, 0]]
    soft = F.propagate_labels(rows, torch.eye(2), previous, mapping, scale=1.0, alpha=0.5)
    first = torch.eye(2).softmax(1)[0, 0]
    torch.testing.assert_close(soft[:, 0], torch.stack([0.5 + 0.5 * first, 0.5 * first, first]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"centroids": torch.eye(3)}, r"features must be \(n, D\) and centroids"),
        ({"previous": torch.tensor([0, 2])}, "previous must be -1 to 1, got 0 to 2"),
        ({"scale": 0.0}, "scale must be above 0, got 0.0"),
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], got 1.5"),
        ({"beta": -1.0}, r"beta must be in \[0, 1\], got -1.0"),
        ({"mapping": F.cluster_mapping(torch.tensor([0]), torch.tensor([0]))}, "mapping must have"),
    ],
)
def test_bad_input(change, message):
    labels = torch.tensor([0, 1])
    good = {
        "features": torch.eye(2),
        "centroids": torch.eye(2),
        "previous": labels,
        "mapping": F.cluster_mapping(labels, labels),
    }
    with pytest.raises(ValueError, match=message):
        F.propagate_labels(**good | change)
