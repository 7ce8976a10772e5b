from __future__ import annotations

import pytest

from pplr_lightning.report.curves import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    charts,
    compared_charts,
    draw,
    epoch_ticks,
    round_step,
    short,
    value_range,
)

from .conftest import history


class TestDraw:
    def test_places_points_between_the_axes(self):
        chart = draw("mAP", [("mAP", [(0.0, 0.0), (1.0, 5.0), (2.0, 10.0)])])
        (curve,) = chart.curves
        left, right = LEFT, WIDTH - RIGHT
        low, high = HEIGHT - BOTTOM, TOP
        middle = ((left + right) / 2, (low + high) / 2)
        places = [(left, low), middle, (right, high)]
        assert [dot[:2] for dot in curve.dots] == places
        assert curve.path == "M46.0,184.0L188.0,97.0L330.0,10.0"
        assert [dot[2] for dot in curve.dots][1] == "mAP, epoch 1: 5"
        assert curve.last == "10"
        assert [label for _, label in chart.across] == ["0", "1", "2"]
        assert [label for _, label in chart.up] == ["0", "2", "4", "6", "8", "10"]

    def test_a_name_keeps_its_style_where_another_has_no_points(self):
        chart = draw("loss", [("sum", []), ("PGLR", [(0.0, 1.0)])])
        assert [(curve.label, curve.style) for curve in chart.curves] == [("PGLR", 1)]

    def test_a_single_point_lies_within(self):
        for value in (0.0, 29.0, -3.0, 2e-4):
            (curve,) = draw("x", [("x", [(0.0, value)])]).curves
            ((x, y, _),) = curve.dots
            assert x == LEFT
            assert TOP <= y <= HEIGHT - BOTTOM

    def test_values_as_small_as_can_be(self):
        (curve,) = draw("x", [("x", [(0.0, 5e-324), (1.0, -5e-324)])]).curves
        assert all(TOP <= y <= HEIGHT - BOTTOM for _, y, _ in curve.dots)

    def test_nothing_to_draw(self):
        assert draw("x", [("a", []), ("b", [])]) is None

    @pytest.mark.parametrize(
        ("epochs", "dense", "dots"), [(25, False, 25), (26, True, 26), (301, True, 0)]
    )
    def test_many_epochs_are_not_marked(self, epochs, dense, dots):
        (curve,) = draw("x", [("x", [(float(i), 1.0 * i) for i in range(epochs)])]).curves
        assert (curve.dense, len(curve.dots)) == (dense, dots)


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (42.4, 62.6), (3.1, 3.3), (70, 86), (5, 5), (0, 0), (2e-6, 2e-4), (-2, 3)],
)
def test_range_holds_the_values_in_few_round_steps(low, high):
    bottom, top, step = value_range(low, high)
    assert bottom <= low + 1e-12
    assert top >= high - 1e-12
    assert 1 <= round((top - bottom) / step) <= 7
    assert (top - bottom) / step == pytest.approx(round((top - bottom) / step))


def test_range_begins_at_zero_where_values_vary_much():
    assert value_range(20, 60)[0] == 0
    assert value_range(50, 60)[0] > 0


@pytest.mark.parametrize(
    ("width", "step"), [(0.3, 0.5), (1, 1), (1.1, 2), (7, 10), (0.00004, 5e-5)]
)
def test_round_step(width, step):
    assert round_step(width) == pytest.approx(step)


class TestEpochTicks:
    def test_few(self):
        assert epoch_ticks(0, 3) == [(0, "0"), (1, "1"), (2, "2"), (3, "3")]

    def test_before_training(self):
        assert epoch_ticks(-1, 2) == [(-1, "start"), (0, "0"), (1, "1"), (2, "2")]
        ticks = epoch_ticks(-1, 49)
        assert [label for _, label in ticks] == ["start", "10", "20", "30", "40"]

    @pytest.mark.parametrize("last", [1, 7, 19, 50, 199, 1000])
    def test_are_never_many(self, last):
        assert 2 <= len(epoch_ticks(0, last)) <= 7


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (70.0, "70"), (0.35, "0.35"), (1.5e-4, "1.5e-4"), (-2e-5, "-2e-5")],
)
def test_short(value, text):
    assert short(value) == text


class TestCharts:
    def test_of_one_run(self):
        found = {chart.title: [c.label for c in chart.curves] for chart in charts(history())}
        assert found == {
            "Retrieval, %": ["mAP", "rank-1", "mINP"],
            "Losses (mean over the epoch)": ["sum", "PGLR"],
            "Clusters": ["clusters"],
            "Outliers, % of the images": ["outliers"],
            "Agreement of global and part features": ["mean"],
            "Labels against the identities": ["ARI", "precision", "recall"],
            "Learning rate": ["lr"],
            "Seconds per epoch": ["labels", "training", "evaluation"],
        }

    def test_losses_of_another_method(self):
        row = {"epoch": 0.0, "train/loss": 3.0, "train/loss_new": 1.0, "train/loss_camera": 2.0}
        (losses,) = charts([row])
        assert [(c.label, c.style) for c in losses.curves] == [
            ("sum", 0), ("camera", 4), ("new", 5),
        ]  # fmt: skip
        (losses,) = charts([{**row, "train/loss_sum": 4.0}])  # two of one name
        assert [c.last for c in losses.curves] == ["3", "2", "1", "4"]
        titles = [chart.title for chart in compared_charts({"A": [], "B": [row]})]
        assert titles[-1] == "Losses (mean over the epoch): new"

    def test_values_in_percent(self):
        retrieval = charts(history())[0].curves[0]
        assert retrieval.dots[0][2] == "mAP, before training: 20"
        assert retrieval.last == "49"

    def test_of_nothing(self):
        assert charts([]) == []
        assert compared_charts({"A": [], "B": []}) == []

    def test_of_two_runs_each_quantity_has_its_own(self):
        found = {
            chart.title: [(c.label, c.style) for c in chart.curves]
            for chart in compared_charts({"A": [], "B": history()})
        }
        assert found["Retrieval, %: mAP"] == [("B", 1)]
        assert found["Clusters"] == [("B", 1)]
        assert found["Seconds per epoch: training"] == [("B", 1)]
        found = compared_charts({"A": history(), "B": history()[:2]})
        assert [(c.label, c.style) for c in found[0].curves] == [("A", 0), ("B", 1)]
