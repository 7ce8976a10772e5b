from __future__ import annotations

import pytest
import torch

from pplr_lightning.labelers.labeler import trainable_classes


def test_no_class_stops_with_what_to_change():
    with pytest.raises(
        ValueError, match=r"no class in 40 images, 40 .* raise eps or .*min_samples"
    ):
        trainable_classes(torch.full((40,), -1))


@pytest.mark.parametrize(
    ("outliers", "fix"), [(0, "lower eps or k1"), (38, "raise eps or lower min_samples")]
)
def test_one_class_stops_with_what_to_change(outliers, fix):
    """One small dense group among outliers is not what a lower eps would part."""
    classes = torch.zeros(40, dtype=torch.int64)
    classes[:outliers] = -1
    with pytest.raises(ValueError, match=rf"a single class in 40 images, {outliers} .*: {fix} \("):
        trainable_classes(classes)


def test_of_too_many_the_largest_are_kept():
    sizes = [5, 8, 7, 8, 8]
    classes = torch.arange(5).repeat_interleave(torch.tensor(sizes))
    with pytest.warns(UserWarning, match="5 classes, but max_clusters=3: the smallest 2"):
        kept = trainable_classes(classes, 3)
    expected = torch.tensor([-1, 0, -1, 1, 2]).repeat_interleave(torch.tensor(sizes))
    assert torch.equal(kept, expected)
    assert torch.equal(trainable_classes(classes, 5), classes)
    assert torch.equal(trainable_classes(classes), classes)


def test_one_class_is_never_kept_of_several():
    with pytest.raises(ValueError, match="max_clusters must be at least 2, got 1"):
        trainable_classes(torch.arange(5), 1)
