from __future__ import annotations

import pytest
import torch

from pplr_lightning.data import Sample
from pplr_lightning.visualization import caption_of, clusters_figure

from .reading import check_readable, images, texts


@pytest.fixture
def people(train):
    """Persons 0, 0, 1, 1, 2, 2, ... of 40 images."""
    return [Sample(one.path, i // 2, 0) for i, one in enumerate(train[:40])]


def test_shows_the_largest_the_most_mixed_and_outliers(people, tmp_path):
    sizes = [7, 6, 8, 4, 2, 4]  # clusters 0 to 5; the last nine images are outliers
    labels = torch.tensor([c for c, size in enumerate(sizes) for _ in range(size)] + [-1] * 9)
    figure = clusters_figure(people, labels, when="epoch 3")
    names = [text for text in texts(figure) if "images" in text and "\n" in text][:7]
    assert [name.split("\n")[:3] for name in names[:5]] == [
        ["largest", "cluster 2", "8 images"],
        ["largest", "cluster 0", "7 images"],
        ["largest", "cluster 1", "6 images"],
        ["most mixed", "cluster 3", "4 images"],
        ["most mixed", "cluster 4", "2 images"],
    ]
    assert names[3].endswith("3 identities\nA: 50%")
    assert "outliers\n9 images" in names
    assert "40 images, 6 clusters, 9 outliers" in caption_of(figure)
    check_readable(figure, tmp_path)


def test_letters_name_identities_by_their_number_of_images(train):
    people = [Sample(one.path, person, 0) for one, person in zip(train, [4, 9, 9], strict=False)]
    written = texts(clusters_figure(people, torch.zeros(3, dtype=torch.int64)))
    assert [text for text in written if text in "ABC"] == ["A", "A", "B"]


def test_without_identities_none_is_spoken_of(train, tmp_path):
    crops = [one._replace(person_id=-1) for one in train]
    labels = torch.arange(len(crops)) % 4
    figure = clusters_figure(crops, labels)
    assert not any("mixed" in text or "identit" in text for text in texts(figure)[2:])
    assert "Identities are not known" in caption_of(figure)
    assert len(images(figure)) == 48
    check_readable(figure, tmp_path)


def test_without_identities_those_of_median_size_are_shown(train):
    crops = [one._replace(person_id=-1) for one in train]
    sizes = [12, 11, 10, 4, 4, 4, 4, 9, 2, 1, 1, 1]
    labels = torch.full((len(crops),), -1)
    labels[: sum(sizes)] = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    written = texts(clusters_figure(crops, labels))
    typical = [text.split("\n")[1:3] for text in written if text.startswith("of median size")]
    assert typical == [[f"cluster {c}", "4 images"] for c in (3, 5, 6)]


def test_the_most_doubtful_are_shown_where_it_is_known_how_clear_they_are(train, tmp_path):
    crops = [one._replace(person_id=-1) for one in train]
    sizes = torch.tensor([12, 11, 10, 4, 4, 4, 4, 9, 2, 1, 1, 1])
    labels = torch.full((len(crops),), -1)
    labels[: sizes.sum()] = torch.arange(len(sizes)).repeat_interleave(sizes)
    silhouettes = torch.zeros(len(crops))
    silhouettes[labels == 7] = 0.6
    silhouettes[labels == 5] = -0.1
    figure = clusters_figure(crops, labels, silhouettes=silhouettes)
    rows = [text.split("\n")[:2] for text in texts(figure) if text.count("\n") == 2]
    assert rows == [
        *(["largest", f"cluster {c}"] for c in (0, 1, 2)),
        *(["most doubtful", f"cluster {c}"] for c in (5, 3)),
        *(["of median size", f"cluster {c}"] for c in (4, 6, 8)),
    ]
    assert "The most doubtful have" in caption_of(figure)
    check_readable(figure, tmp_path)


def test_no_cluster_one_and_five_hundred(train, many, tmp_path):
    none = torch.full((len(train),), -1)
    figure = clusters_figure(train, none)
    assert "0 clusters, 96 outliers" in caption_of(figure)
    check_readable(figure, tmp_path)
    check_readable(clusters_figure(train, torch.zeros_like(none)), tmp_path)
    figure = clusters_figure(*many)
    assert "500 clusters" in caption_of(figure)
    check_readable(figure, tmp_path)
    check_readable(clusters_figure([], none[:0]), tmp_path)


def test_odd_images(odd, tmp_path):
    figure = clusters_figure(odd, torch.zeros(len(odd), dtype=torch.int64))
    assert texts(figure).count("not\nreadable") == 2
    check_readable(figure, tmp_path)


def test_a_large_cluster_is_sampled_by_the_seed(train):
    one = torch.zeros(len(train), dtype=torch.int64)
    first, same, other = (arrays(clusters_figure(train, one, seed=seed)) for seed in (0, 0, 1))
    assert len(first) == 12
    assert first == same != other


def arrays(figure):
    return [image.get_array().tobytes() for image in images(figure)]
