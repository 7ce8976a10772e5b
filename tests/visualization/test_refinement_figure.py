from __future__ import annotations

import pytest
import torch
from matplotlib.colors import to_hex

from pplr_lightning.visualization import caption_of, refinement_figure
from pplr_lightning.visualization.layout import GREEN

from .reading import check_readable, images, texts


def refined(labels, clusters, beta=0.5):
    torch.manual_seed(0)
    onehot = torch.nn.functional.one_hot(labels, clusters)
    return beta * onehot + (1 - beta) * (3 * torch.randn(len(labels), clusters)).softmax(1)


@pytest.fixture
def labels(train):
    """Clusters as the identities are, but for every ninth image, an outlier."""
    persons = torch.tensor([one.person_id for one in train])
    labels = torch.unique(persons, return_inverse=True)[1]
    labels[::9] = -1
    return labels


def figure_of(train, labels, **options):
    indices = (labels >= 0).nonzero()[:, 0]
    distribution = refined(labels[indices], int(labels.max()) + 1)
    return refinement_figure(train, labels, indices, distribution, beta=0.5, **options)


def test_shows_what_changed_most_first(train, labels, tmp_path):
    figure = figure_of(train, labels, when="epoch 3")
    indices = (labels >= 0).nonzero()[:, 0]
    distribution = refined(labels[indices], 12)
    own = distribution[torch.arange(len(indices)), labels[indices]]
    kept = [text.split()[3] for text in texts(figure) if text.startswith("most changed")]
    assert kept == [f"{value:.2f}" for value in own.sort().values[:3]]
    (middle,) = (text for text in texts(figure) if text.startswith("median"))
    assert f"keeps {float(own.sort().values[len(own) // 2]):.2f} of" in middle
    values, classes = distribution[own.argmin()].topk(5)
    written = [text for text in texts(figure) if ": 0." in text][:5]
    found = zip(classes.tolist(), values.tolist(), strict=True)
    assert [text.replace(" ✓", "") for text in written] == [f"{c}: {v:.2f}" for c, v in found]
    assert f"{len(indices)} clustered images" in caption_of(figure)
    check_readable(figure, tmp_path)


def test_bars_are_as_long_as_the_classes_are_large(train, labels):
    figure = figure_of(train, labels)
    patches = [one for one in figure.axes[0].patches if one.get_height() < 0.1]
    full, bars = patches[::2], patches[1::2]
    shares = [bar.get_width() / one.get_width() for one, bar in zip(full, bars, strict=True)]
    written = [float(text.split(": ")[1]) for text in texts(figure) if ": 0." in text]
    assert shares == pytest.approx(written, abs=0.006)
    green = [to_hex(bar.get_facecolor()) == GREEN for bar in bars]
    assert sum(green) == 4  # the image's own cluster, once in each row


def test_ticks_clusters_of_the_images_true_identity(train, labels):
    ticked = [text for text in texts(figure_of(train, labels)) if "✓:" in text and len(text) < 20]
    assert len(ticked) == 4  # clusters are identities here, so in each row its own
    crops = [one._replace(person_id=-1) for one in train]
    figure = figure_of(crops, labels)
    assert not any("✓" in text for text in texts(figure))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images(train, labels, count, tmp_path):
    indices = (labels >= 0).nonzero()[:count, 0]
    distribution = refined(labels[indices], 12)
    figure = refinement_figure(train, labels, indices, distribution, beta=0.5)
    assert len(images(figure)) == count * 8
    check_readable(figure, tmp_path)


def test_no_image_that_can_be_read(train, labels, tmp_path):
    none = torch.empty(0, dtype=torch.int64)
    figure = refinement_figure(train, labels, none, torch.empty(0, 0), beta=0.5)
    assert "nothing to show" in texts(figure)
    check_readable(figure, tmp_path)


def test_one_cluster_and_five_hundred(train, many, tmp_path):
    samples, labels = many
    check_readable(figure_of(samples, labels), tmp_path)
    one = torch.zeros(len(train), dtype=torch.int64)
    check_readable(figure_of(train, one), tmp_path)


def test_odd_images(odd, tmp_path):
    check_readable(figure_of(odd, torch.arange(len(odd)) % 2), tmp_path)
