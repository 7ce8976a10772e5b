from __future__ import annotations

from pplr_lightning.callbacks.results import print_table, summarize


def cells(printed: str) -> list[list[str]]:
    """The cells of the table's lines of text."""
    lines = [line.strip().replace("┃", "│") for line in printed.splitlines()]
    rows = [line.strip("│").split("│") for line in lines if line.startswith("│")]
    return [[cell.strip() for cell in row] for row in rows]


def test_best_is_by_map():
    history = [{"epoch": e, "mAP": value} for e, value in enumerate((0.1, 0.4, 0.3))]
    summary = summarize(history)
    assert [summary[name]["epoch"] for name in ("first", "best", "last")] == [0, 1, 2]


def test_best_is_not_by_what_was_reranked():
    history = [{"mAP": 0.2, "rerank/mAP": 0.3}, {"mAP": 0.1, "rerank/mAP": 0.9}]
    assert summarize(history)["best"] == history[0]


def test_plain_and_reranked_lines(capsys):
    rows = {
        "first": {"epoch": -1, "mAP": 0.25, "rank-1": 0.5},  # before re-ranking was turned on
        "last": {"epoch": 3, "mAP": 0.5, "rank-1": 0.75, "rerank/mAP": 0.625, "rerank/rank-1": 1},
    }
    print_table(rows, caption="what was compared")
    printed = capsys.readouterr().out
    assert "what was compared" in printed
    assert cells(printed) == [
        ["", "mAP", "rank-1"],
        ["first (before training)", "25.0", "50.0"],
        ["last (epoch 3)", "50.0", "75.0"],
        ["last (epoch 3), re-ranked", "62.5", "100.0"],
    ]


def test_a_rank_that_was_not_asked_for_before(capsys):
    print_table({"first": {"mAP": 0.25}, "last": {"mAP": 0.5, "rank-20": 0.75}}, caption="")
    assert cells(capsys.readouterr().out)[1:] == [["first", "25.0", ""], ["last", "50.0", "75.0"]]
