from __future__ import annotations

import pytest
import torch

from pplr_lightning.data.pseudo_labels import PseudoLabels
from pplr_lightning.evaluation.label_quality import label_statistics
from pplr_lightning.visualization import caption_of, label_quality_figure

from .reading import check_readable, texts


def history(epochs, parts=3, known=True, clusters=80):
    torch.manual_seed(0)
    rows = []
    for epoch in range(epochs):
        classes, agreement = torch.randint(-1, clusters, (400,)), torch.rand(400, parts)
        labels = PseudoLabels(classes, {"agreement": agreement})
        persons = torch.arange(400) % 60 if known else torch.full((400,), -1)
        rows.append({"epoch": float(epoch), **label_statistics(labels, persons, persons)})
    return rows


def lines(figure, panel):
    return {line.get_label(): line.get_ydata() for line in figure.axes[panel].lines}


def test_shows_every_value(tmp_path):
    rows = history(6)
    figure = label_quality_figure(rows, identities=60)
    clusters, quality, outliers, agreement = (lines(figure, panel) for panel in range(4))
    assert list(clusters["clusters"]) == [80] * 6
    assert list(clusters["true identities"]) == [60, 60]
    assert list(quality["ARI"]) == [row["ari"] for row in rows]
    assert list(quality["pairwise precision"]) == [row["precision"] for row in rows]
    assert list(quality["pairwise recall"]) == [row["recall"] for row in rows]
    assert list(next(iter(outliers.values()))) == [row["outliers"] for row in rows]
    assert list(agreement) == ["part 1", "part 2", "part 3"]
    assert list(agreement["part 2"]) == [row["agreement_part2"] for row in rows]
    assert "6 epochs" in caption_of(figure)
    check_readable(figure, tmp_path)


@pytest.mark.parametrize("epochs", [1, 2, 50])
@pytest.mark.parametrize("clusters", [1, 500])
def test_any_number_of_epochs_and_clusters(epochs, clusters, tmp_path):
    figure = label_quality_figure(history(epochs, parts=6, clusters=clusters), identities=751)
    check_readable(figure, tmp_path)


def test_without_identities(tmp_path):
    figure = label_quality_figure(history(3, known=False))
    assert "identities are not known" in texts(figure)
    assert list(lines(figure, 0)) == ["clusters"]
    check_readable(figure, tmp_path)


def test_without_agreement(tmp_path):
    figure = label_quality_figure(history(3, parts=0), identities=60)
    assert "not scored" in texts(figure)
    assert "identities are not known" not in texts(figure)
    check_readable(figure, tmp_path)


def test_of_no_epoch(tmp_path):
    figure = label_quality_figure([])
    assert texts(figure).count("no labels yet") == 4
    check_readable(figure, tmp_path)


def test_a_run_without_clusters_stays_in_view(tmp_path):
    rows = [{"epoch": 0.0, "clusters": 0.0, "outliers": 1.0, "agreement_part1": 0.0}]
    check_readable(label_quality_figure(rows), tmp_path)
