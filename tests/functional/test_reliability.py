from __future__ import annotations

import numpy as np
import pytest
import torch

from pplr_lightning import functional as F

PARTS = ("dbscan", "dbscan_tight", "dbscan_loose")


def partition(labels):
    """The labels numbered by each class's first image, which tells equal partitions."""
    _, first, inverse = np.unique(labels.numpy(), return_index=True, return_inverse=True)
    return first[inverse].tolist()


def without_gaps(labels):
    return len(labels.unique()) == int(labels.max()) + 1


@pytest.mark.parametrize("name", ["spcl_refinement", "spcl_refinement_wide"])
def test_equals_the_authors_refinement(reference, name):
    """Labels and threshold of two epochs, the second with the threshold of the first."""
    arrays, threshold = reference(name), None
    for epoch in (0, 1):
        labels = [arrays[f"epoch{epoch}_{part}"] for part in PARTS]
        found, threshold = F.keep_reliable(*labels, threshold=threshold)
        assert threshold == float(arrays[f"epoch{epoch}_indep_threshold"])
        assert without_gaps(found)
        for other in ("spcl", "openunreid"):
            assert partition(found) == partition(arrays[f"epoch{epoch}_labels_{other}"])
        assert len(found.unique()) > len(labels[0].unique())  # not all images are kept


def test_equals_a_second_implementation_of_the_authors(reference):
    arrays = reference("rlcc_reliability")
    tight, normal, loose = (F.dbscan(arrays["distance"], eps=eps) for eps in arrays["eps"].tolist())
    found, threshold = F.keep_reliable(normal, tight, loose)
    assert threshold == float(arrays["threshold"])
    assert partition(found) == partition(arrays["labels"])
    given = float(arrays["given_threshold"])
    found, kept = F.keep_reliable(normal, tight, loose, threshold=given)
    assert kept == given
    assert partition(found) == partition(arrays["labels_with_given_threshold"])


def dense(labels, tight, loose, threshold):
    """The definition, image by image over sets."""
    sets = []
    for one in (labels, tight, loose):
        sets.append([{j for j in range(len(one)) if j == i or one[j] == one[i] >= 0}
                     for i in range(len(one))])  # fmt: skip
    own, inner, outer = sets
    apart = [1 - len(a & b) / len(a | b) for a, b in zip(own, inner, strict=True)]
    crossed = [1 - len(a & b) / len(a | b) for a, b in zip(own, outer, strict=True)]
    return [
        min(j for j in own[i] if keeps(j, own, apart, crossed, threshold))
        if keeps(i, own, apart, crossed, threshold)
        else i
        for i in range(len(own))
    ]


def keeps(image, own, apart, crossed, threshold):
    mates = own[image]
    return min(crossed[j] for j in mates) <= threshold and apart[image] <= min(
        apart[j] for j in mates
    )


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_definition(seed):
    generator = torch.Generator().manual_seed(seed)
    labels, tight, loose = torch.randint(-1, 8, (3, 60), generator=generator)
    found, _ = F.keep_reliable(labels, tight, loose, threshold=0.85)
    assert partition(found) == dense(labels.tolist(), tight.tolist(), loose.tolist(), 0.85)
    assert without_gaps(found)


def test_clusters_that_nothing_changes_are_kept_whole():
    labels = torch.tensor([3, 3, -1, 1, 1, -1])  # numbers may be missing
    found, threshold = F.keep_reliable(labels, labels, labels)
    assert threshold == 0
    assert found.tolist() == [1, 1, 2, 0, 0, 3]


def test_the_threshold_rounds_half_to_even():
    """Of five clusters entry 4 of 0 to 4, of one entry 0."""
    labels = torch.arange(5).repeat_interleave(2)
    loose = torch.tensor([0, 0, 0, 0, 2, 2, 3, 3, 4, 4])  # the first two are joined
    assert F.keep_reliable(labels, labels, loose)[1] == 0.5
    assert F.keep_reliable(labels[:2], labels[:2], labels[:2])[1] == 0


def test_overlap_equals_the_authors(reference):
    arrays = reference("rlcc_consensus")
    found = F.cluster_overlap(arrays["previous"], arrays["current"])
    np.testing.assert_array_equal(found.toarray(), arrays["iou"].numpy())
    toy = reference("rlcc_toy")
    found = F.cluster_overlap(toy["previous"], toy["current"])
    np.testing.assert_array_equal(found.toarray(), toy["iou"].numpy())


def test_an_image_without_a_class_is_in_no_overlap():
    previous, current = torch.tensor([0, 0, -1, 2]), torch.tensor([0, -1, -1, 0])
    found = F.cluster_overlap(previous, current).toarray()
    assert found.tolist() == [[1 / 3], [0], [1 / 2]]
    assert F.cluster_overlap(previous, torch.full((4,), -1)).shape == (3, 0)


def test_memory_is_of_the_order_of_the_images():
    images = 200_000  # a matrix of classes would have 2e10 entries
    previous = torch.arange(images)
    overlap = F.cluster_overlap(previous, previous.flip(0))
    assert overlap.nnz == images
    found, _ = F.keep_reliable(previous // 2, previous // 2, previous // 3)
    assert len(found) == images


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([[0, 0], [0], [0, 0]], {}, r"tight must have shape \(2,\), got \(1,\)"),
        ([[0, -2], [0, 0], [0, 0]], {}, r"labels must be \(N,\) and -1 or above"),
        ([[0, 0], [0, 0], [0, 0]], {"threshold": 2.0}, r"threshold must be in \[0, 1\], got 2.0"),
        ([[-1, -1]] * 3, {}, "no cluster of two images or more, .*: raise eps"),
    ],
)
def test_bad_input(labels, options, message):
    with pytest.raises(ValueError, match=message):
        F.keep_reliable(*map(torch.tensor, labels), **options)
