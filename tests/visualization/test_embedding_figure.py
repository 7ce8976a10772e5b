from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

from pplr_lightning.visualization import Embedding, caption_of, embed, embedding_figure
from pplr_lightning.visualization.layout import BLACK, GREY

from ..generators import generators
from .reading import check_readable, texts


def groups(count=4, each=15):
    torch.manual_seed(0)
    centres = torch.randn(count, 16).repeat_interleave(each, 0)
    features = nnf.normalize(centres + 0.1 * torch.randn(len(centres), 16), dim=1)
    return features, torch.arange(count).repeat_interleave(each)


class TestEmbed:
    def test_keeps_groups_together(self):
        features, labels = groups()
        points = embed(features)
        assert points.shape == (60, 2)
        near = torch.cdist(points, points).topk(6, largest=False).indices
        assert (labels[near] == labels[:, None]).float().mean() > 0.95

    def test_is_the_same_for_the_same_seed_and_leaves_the_generators_alone(self):
        features, _ = groups(each=6)
        before, threads = generators(), torch.get_num_threads()
        assert torch.equal(embed(features, seed=1), embed(features, seed=1))
        assert generators() == before
        assert torch.get_num_threads() == threads

    @pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 6])
    def test_few_images(self, count):
        points = embed(nnf.normalize(torch.randn(count, 8), dim=1))
        assert points.shape == (count, 2)
        assert points.isfinite().all()

    def test_features_that_are_all_the_same_or_of_one_dimension(self):
        assert embed(torch.ones(20, 8)).isfinite().all()
        assert embed(torch.rand(20, 1)).shape == (20, 2)
        assert embed(torch.ones(3, 1)).shape == (3, 2)


def panel(labels, name="epoch 0", indices=None, agreement=None) -> Embedding:
    labels = torch.as_tensor(labels)
    count = len(labels)
    torch.manual_seed(1)
    return Embedding(
        torch.randn(count, 2),
        labels,
        torch.linspace(0, 1, count) if agreement is None else agreement,
        torch.arange(count) if indices is None else indices,
        name,
    )


def scatters(axes) -> list[PathCollection]:
    return [one for one in axes.collections if isinstance(one, PathCollection)]


def look_of(axes, point) -> tuple[str, int]:
    """Colour of a point, and the number of corners of its marker."""
    for scatter in scatters(axes)[1:-1]:
        for offset in scatter.get_offsets():
            if np.allclose(offset, point):
                return to_hex(scatter.get_facecolor()[0]), len(scatter.get_paths()[0].vertices)
    raise AssertionError("the point is in no cluster")


def draw(*panels):
    return embedding_figure(panels, total=1000, part="part 1 of 2")


def test_marks_outliers_and_low_agreement(tmp_path):
    figure = draw(panel([0, 0, 1, -1, 1, 1, -1, 2, 2, 2]))
    outliers, *_, rings = scatters(figure.axes[0])
    assert len(outliers.get_offsets()) == 2
    assert to_hex(outliers.get_edgecolor()[0]) == GREY
    assert len(rings.get_offsets()) == 2  # the lowest 20 %
    assert to_hex(rings.get_edgecolor()[0]) == BLACK
    assert len(rings.get_facecolor()) == 0
    assert "epoch 0, 3 clusters here" in texts(figure)
    assert "10 of 1,000 training images, sampled" in caption_of(figure)
    check_readable(figure, tmp_path)


def test_without_agreement_nothing_is_marked_and_nothing_said_of_it(tmp_path):
    one = panel([0, 0, 1, -1, 1])
    figure = draw(one._replace(agreement=None))
    assert len(scatters(figure.axes[0])) == len(scatters(draw(one).axes[0])) - 1
    assert not any("agreement" in text for text in texts(figure))
    assert "low agreement" in texts(draw(one))
    check_readable(figure, tmp_path)


def test_clusters_look_different():
    axes = draw(panel(list(range(42)))).axes[0]
    looks = {
        (to_hex(one.get_facecolor()[0]), one.get_paths()[0].vertices.tobytes())
        for one in scatters(axes)[1:-1]
    }
    assert len(looks) == 42


def test_clusters_of_the_same_images_look_the_same_before_and_after(tmp_path):
    after = panel([5, 5, 5, 3, 3, 3, 0, 0], "after")
    before = panel([0, 0, 1, 1, 1, 1, 2, -1], "before")
    figure = draw(before, after)
    for place in (0, 3, 6):  # clusters 0, 1, 2 before; 5, 3, 0 after
        looks = {
            look_of(axes, one.points[place])
            for axes, one in zip(figure.axes, (before, after), strict=True)
        }
        assert len(looks) == 1
    assert "look the same" in caption_of(figure)
    assert "look the same" not in caption_of(draw(after))
    check_readable(figure, tmp_path)


def test_other_images_before_and_after():
    figure = draw(panel([0, 1], indices=torch.tensor([0, 1])), panel([0, 1, 2], "after"))
    assert len(figure.axes) == 2
    draw(panel([0, 1], indices=torch.tensor([7, 8])), panel([0, -1], "after"))


@pytest.mark.parametrize("labels", [[], [-1] * 5, [0] * 30, list(range(500))])
def test_no_cluster_one_and_five_hundred(labels, tmp_path):
    for panels in ([panel(labels)], [panel(labels), panel(labels)]):
        check_readable(draw(*panels), tmp_path)
    check_readable(draw(), tmp_path)


def test_agreement_that_is_all_the_same_marks_nothing():
    axes = draw(panel([0, 1, 1], agreement=torch.zeros(3))).axes[0]
    assert len(scatters(axes)[-1].get_offsets()) == 0
