from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from pplr_lightning.model_card import write_card

OPTIONS = {"backbone": "resnet10t", "pretrained": True, "camera_weight": 0.0}
DATA = {
    "dataset": {
        "class_path": "pplr_lightning.data.Market1501",
        "init_args": {"root": "/home/me/data/market"},
    },
    "image_size": [384, 128],
    "use_cameras": True,
}


def evaluation(epoch: int, value: float) -> dict[str, float]:
    return {"epoch": epoch, "mAP": value, "rank-1": value + 0.1}


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a run."""
    write_config(tmp_path, DATA)
    summary = {"first": evaluation(-1, 0.1), "best": evaluation(3, 0.8), "last": evaluation(4, 0.7)}
    (tmp_path / "summary.json").write_text(json.dumps({**summary, "history": []}))
    return tmp_path


def write_config(folder: Path, data: dict, source: str = "clusters") -> None:
    config = {"data": data, "pseudo_labels": {"source": source}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def card(run: Path | None = None, *, data: str | None = None, **options: object) -> str:
    header = {"license": "cc-by-nc-4.0", "library_name": "pplr_lightning", "tags": ["pplr"]}
    options = {**OPTIONS, **options}
    return str(write_card(header, options=options, num_features=512, run=run, data=data))


def test_header(run):
    data = ModelCard(card(run)).data
    assert (data.license, data.library_name, data.tags) == (
        "cc-by-nc-4.0", "pplr_lightning", ["pplr"],
    )  # fmt: skip


def test_of_a_run(run):
    text = card(run)
    assert "- Images: Market-1501 (academic research only)\n" in text
    assert "/home/me" not in text
    assert "- Size and colours: 384 x 128 (height, width), RGB" in text
    assert "minus [0.485, 0.456, 0.406], divided by [0.229, 0.224, 0.225]" in text
    assert "- Labels: pseudo labels, no identities\n" in text
    assert "- Setting: without cameras; batches prefer images of other cameras\n" in text
    assert "- Start: the backbone's published weights\n" in text
    assert "| | epoch | mAP | rank-1 |\n|---|---|---|---|\n" in text
    assert "| first | before training | 10.0 | 20.0 |\n" in text
    assert "| best | 3 | 80.0 | 90.0 |\n| last | 4 | 70.0 | 80.0 |\n" in text
    assert "Of the weights: cc-by-nc-4.0." in text
    assert "## Intended use" in text
    assert "not\nfor identifying individuals" in text


def test_says_how_the_results_came_about(run):
    assert "In %; images are compared by: global features;" in card(run)
    summary = json.loads((run / "summary.json").read_text())
    summary["features"] = "both"
    summary["last"]["rerank/mAP"] = 0.75  # since the run went on with another option
    (run / "summary.json").write_text(json.dumps(summary))
    text = card(run)
    assert "In %; images are compared by: both features;" in text
    assert "| best | 3 | 80.0 | 90.0 |  |\n| last | 4 | 70.0 | 80.0 | 75.0 |\n" in text


def test_without_a_run():
    text = card()
    assert "- Images: not stated\n" in text
    assert "- Size and colours: not stated\n" in text
    assert "- Labels: not stated\n" in text
    assert "- Setting: without cameras\n" in text
    assert "## Results\n\nNot stated.\n" in text


def test_data_in_other_words(run):
    assert "- Images: crops of my own\n" in card(run, data="crops of my own")


def test_a_run_without_evaluation(run):
    (run / "summary.json").unlink()
    assert "## Results\n\nNot stated.\n" in card(run)


def test_with_cameras(run):
    write_config(run, {**DATA, "use_cameras": False})
    setting = (
        "with cameras, of weight 0.5 in the loss; batches do not prefer images of other cameras"
    )
    assert f"- Setting: {setting}\n" in card(run, camera_weight=0.5)


def test_trained_on_identities(run):
    write_config(run, DATA, source="identities")
    assert "- Labels: true identities: supervised, not label-free\n" in card(run)


def test_of_other_colours(run):
    write_config(run, {**DATA, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]})
    assert "minus [0.5, 0.5, 0.5], divided by [0.25, 0.25, 0.25]" in card(run)


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"warm_start": "/home/me/last.ckpt"}, "another checkpoint (`warm_start`)"),
        ({"backbone_weights": "vit.pth"}, "backbone weights from elsewhere (`backbone_weights`)"),
        ({"pretrained": False}, "random weights"),
    ],
)
def test_start(options, start):
    text = card(**options)
    assert f"- Start: {start}\n" in text
    assert "/home/me" not in text


@pytest.mark.parametrize(
    ("dataset", "images"),
    [
        (None, "SyntheticReID"),
        ({"class_path": "my.own.Reader"}, "`Reader`"),
        (
            {"class_path": "pplr_lightning.data.DukeMTMCreID", "init_args": {"root": "x"}},
            "DukeMTMC-reID (was CC BY-NC-SA 4.0; taken down by Duke University in 2019",
        ),
        (
            {
                "class_path": "pplr_lightning.data.Joined",
                "init_args": {
                    "datasets": [
                        DATA["dataset"], {"class_path": "pplr_lightning.data.PersonX"},
                    ]
                },
            },
            "Market-1501 (academic research only); PersonX (none stated, its authors ask to be",
        ),
    ],
)  # fmt: skip
def test_data_sets(run, dataset, images):
    write_config(run, {**DATA, "dataset": dataset})
    assert f"- Images: {images}" in card(run)


def test_no_folder_of_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no/config.yaml: no such file; give as run the"):
        card(tmp_path / "no")
