from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

from pplr_lightning.data.sampler import IdentityBatchSampler, ShardSampler, check_batch

LABELS = torch.tensor([0] * 7 + [1] * 5 + [-1] * 4 + [2] * 6 + [3] * 4 + [4] * 9)


def sampler(labels=LABELS, **options):
    defaults = {"batch_size": 8, "instances": 4, "iterations": 10}
    return IdentityBatchSampler(labels, **{**defaults, **options})


def test_every_group_is_one_cluster_and_no_outlier_is_drawn():
    for batch in sampler():
        targets = LABELS[[view.image for view in batch]].view(-1, 4)
        assert (targets == targets[:, :1]).all()
        assert (targets >= 0).all()
        assert len(targets[:, 0].unique()) == 2  # as many clusters as there is room for


def test_images_of_a_group_are_distinct_where_the_cluster_allows():
    for batch in sampler():
        for group in torch.tensor([view.image for view in batch]).view(-1, 4):
            assert len(group.unique()) == 4


def test_clusters_come_equally_often():
    drawn = [LABELS[view.image].item() for batch in sampler(iterations=50) for view in batch]
    counts = torch.bincount(torch.tensor(drawn))
    assert counts.max() - counts.min() <= 30 * 4 / 2  # a permutation drops the fifth of five
    assert counts.min() > 40


def test_length_is_what_it_yields():
    assert len(sampler(iterations=7)) == len(list(sampler(iterations=7))) == 7


def test_batches_depend_on_seed_and_epoch_only():
    assert list(sampler(seed=3, epoch=2)) == list(sampler(seed=3, epoch=2))
    assert list(sampler(seed=3, epoch=2)) != list(sampler(seed=3, epoch=1))
    assert list(sampler(seed=3, epoch=2)) != list(sampler(seed=4, epoch=2))


@pytest.mark.parametrize("start", [0, 1, 9, 10])
def test_what_follows_a_start_is_as_without_it(start):
    late = sampler(seed=3, epoch=2, start=start)
    assert list(late) == list(sampler(seed=3, epoch=2))[start:]
    assert len(late) == 10 - start


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_take_contiguous_parts_of_the_one_global_batch(world_size):
    options = {"batch_size": 16, "seed": 5, "epoch": 1}
    parts = [sampler(rank=r, world_size=world_size, **options) for r in range(world_size)]
    joined = [sum(batches, []) for batches in zip(*parts, strict=True)]
    assert joined == list(sampler(**options))


def test_a_repeated_image_gets_another_view():
    batches = sampler(torch.tensor([0, 1, -1]))  # clusters of one image
    for batch in batches:
        assert sorted(view.image for view in batch) == [0] * 4 + [1] * 4
        assert len({view.seed for view in batch}) == 8


def test_fewer_clusters_than_groups_are_repeated_evenly():
    for batch in sampler(torch.tensor([0] * 5 + [1] * 5), batch_size=16):
        targets = [int(view.image >= 5) for view in batch]
        assert sum(targets) == 8
        assert len(batch) == 16


def test_images_are_spread_over_cameras():
    """One of each camera, in any order, then others; of more cameras than images, any of them."""
    labels, cameras = torch.zeros(12, dtype=torch.int64), torch.tensor([0] * 8 + [1, 1, 2, 3])
    options = {"batch_size": 6, "instances": 6, "cameras": cameras, "spread": True}
    firsts = set()
    for batch in sampler(labels, iterations=40, **options):
        images = [view.image for view in batch]
        assert len(set(images)) == 6
        assert {cameras[image].item() for image in images[:4]} == {0, 1, 2, 3}
        firsts.add(cameras[images[0]].item())
    assert firsts == {0, 1, 2, 3}
    pairs = sampler(labels, iterations=200, **options | {"batch_size": 2, "instances": 2})
    drawn = torch.bincount(
        torch.tensor([cameras[v.image].item() for batch in pairs for v in batch])
    )
    assert drawn.min() > 70  # each of four cameras alike, some 100 of 400, however many its images


def test_cameras_put_positives_of_other_cameras_first():
    labels = torch.zeros(12, dtype=torch.long)
    cameras = torch.tensor([0] * 9 + [1] * 3)
    crossed = total = 0
    for batch in sampler(labels, batch_size=4, cameras=cameras, iterations=40):
        first, *others = (cameras[view.image].item() for view in batch)
        if first == 0:  # three images of another camera are there: all must be taken
            assert others == [1, 1, 1]
        crossed += sum(other != first for other in others)
        total += 3
    assert crossed == total


class TestWithoutRepeating:
    """Clusters of fewer than K images among others, down to single ones."""

    labels = torch.tensor([0] * 7 + [1] * 2 + [-1] + [2] * 4 + [3, 4, 5, 6])  # 17 images of a class

    def draw(self, **options):
        return list(sampler(self.labels, repeat=False, **options))

    def test_a_round_has_each_cluster_once_with_at_most_k_images(self):
        drawn = [view.image for batch in self.draw(iterations=70) for view in batch]
        each = 4 + 2 + 4 + 1 + 1 + 1 + 1  # of a round
        for start in range(0, len(drawn) - each + 1, each):
            once = drawn[start : start + each]
            assert len(set(once)) == each
            assert torch.bincount(self.labels[once]).tolist() == [4, 2, 4, 1, 1, 1, 1]
            changes = (self.labels[once].diff() != 0).sum()
            assert changes == 6  # the images of a cluster stand in a row

    def test_batches_are_full_however_few_images_there_are(self):
        batches = list(sampler(torch.tensor([0, 0, 1, -1]), repeat=False, iterations=5))
        assert [len(batch) for batch in batches] == [8] * 5
        assert all(len({view.seed for view in batch}) == 8 for batch in batches)

    def test_what_follows_a_start_is_as_without_it(self):
        assert self.draw(seed=3, start=4) == self.draw(seed=3)[4:]

    def test_ranks_take_contiguous_parts_of_the_one_global_batch(self):
        parts = [self.draw(batch_size=16, rank=rank, world_size=2) for rank in range(2)]
        assert [a + b for a, b in zip(*parts, strict=True)] == self.draw(batch_size=16)

    def test_large_clusters_alone_are_drawn_whole(self):
        for batch in sampler(LABELS, repeat=False):
            targets = LABELS[[view.image for view in batch]].view(-1, 4)
            assert (targets == targets[:, :1]).all()


def test_no_label_at_all():
    with pytest.raises(ValueError, match="no image has a label"):
        sampler(torch.full((5,), -1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((30, 4, 1), "multiple of 4, such as 28 or 32"),
        ((24, 4, 4), "on 4 processes: use a multiple of 16, such as 16 or 32"),
        ((2, 4, 1), "such as 4 or 8"),
        ((0, 4, 1), "batch_size=0"),
    ],
)
def test_check_batch_names_what_divides(options, message):
    with pytest.raises(ValueError, match=message):
        check_batch(*options)


@pytest.mark.parametrize("images", [1, 7, 16, 33, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_shards_cover_every_image_once_in_whole_blocks(images, world_size):
    dataset = TensorDataset(torch.arange(images))
    shards = [
        list(ShardSampler(dataset, block_size=8, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert sum(shards, []) == list(range(images))
    assert all(shard[0] % 8 == 0 for shard in shards if shard)


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_shards_of_some_blocks(world_size):
    dataset = TensorDataset(torch.arange(27))
    shards = [
        list(
            ShardSampler(dataset, block_size=8, blocks=[0, 2, 3], rank=rank, world_size=world_size)
        )
        for rank in range(world_size)
    ]
    assert sum(shards, []) == [*range(8), *range(16, 27)]
    assert all(shard[0] % 8 == 0 for shard in shards if shard)
    assert max(map(len, shards)) <= 8 * -(-3 // world_size)


@pytest.mark.parametrize("world_size", [1, 2])
def test_more_views_add_looks_at_the_same_images(world_size):
    """The first are those of one view; a rank's part holds its images' looks, view after view."""
    options = {"batch_size": 16, "seed": 5, "epoch": 1}
    plain = list(sampler(**options))
    parts = [sampler(rank=r, world_size=world_size, views=3, **options) for r in range(world_size)]
    share = 16 // world_size
    for expected, batches in zip(plain, zip(*parts, strict=True), strict=True):
        for rank, batch in enumerate(batches):
            own = expected[rank * share : (rank + 1) * share]
            assert batch[:share] == own
            assert [view.image for view in batch] == 3 * [view.image for view in own]
        seeds = [view.seed for batch in batches for view in batch]
        assert len(set(seeds)) == 48


@pytest.mark.parametrize("repeat", [True, False])
def test_batches_of_each_stratum_apart(repeat):
    """Eight images of each, the lowest first, whichever rank they are on; labels are its own."""
    strata = torch.tensor([3, 1]).repeat(40)
    labels = torch.arange(80) // 8 * 2 + (strata == 1)
    options = {"strata": strata, "iterations": 5, "seed": 2, "repeat": repeat}
    batches = list(sampler(labels, **options))
    for batch in batches:
        images = torch.tensor([view.image for view in batch])
        assert strata[images].tolist() == [1] * 8 + [3] * 8
        assert (labels[images].view(-1, 4) == labels[images][::4, None]).all()
        assert len({view.seed for view in batch}) == 16
    parts = [sampler(labels, rank=rank, world_size=2, **options) for rank in range(2)]
    assert [sum(two, []) for two in zip(*parts, strict=True)] == batches


def test_a_stratum_in_broken_groups():
    """Though the whole batch would divide into groups."""
    with pytest.raises(ValueError, match="batch_size=6 does not divide into groups of instances=4"):
        sampler(torch.tensor([0, 0, 1, 1]), strata=torch.tensor([0, 0, 1, 1]), batch_size=6)


def test_a_stratum_without_labels():
    with pytest.raises(ValueError, match="no image has a label"):
        sampler(torch.tensor([0, 0, -1, -1]), strata=torch.tensor([0, 0, 1, 1]))
