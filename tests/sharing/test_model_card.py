from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

import pplr_lightning
from pplr_lightning import PPLRModule, SimCLRModule, methods
from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.methods import ReIDModule
from pplr_lightning.networks import PartNetwork
from pplr_lightning.report.reading import read_run
from pplr_lightning.report.setting import describe_setting
from pplr_lightning.sharing.model_card import write_card

SIZE = Preprocessing((384, 128))
CLUSTERS = (
    "Unsupervised: clusters of the images are the labels; identities were not used. Labeler: "
)
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
    write_evaluations(tmp_path, evaluation(-1, 0.1), evaluation(3, 0.8), evaluation(4, 0.7))
    return tmp_path


def write_evaluations(folder: Path, *history: dict[str, float], **options: object) -> None:
    (folder / "summary.json").write_text(json.dumps({"history": history, **options}))


def write_config(
    folder: Path,
    data: dict,
    *,
    labeler: str | None = "pplr_lightning.labelers.DBSCAN",
    weights: str | None = "pretrained",
    camera_weight: float = 0.0,
) -> None:
    network = {"class_path": "pplr_lightning.networks.PartNetwork"}
    network["init_args"] = {"backbone": "resnet50", "weights": weights}
    options = {"network": network, "camera_weight": camera_weight}
    config = {
        "data": data,
        "model": {"class_path": "pplr_lightning.PPLRModule", "init_args": options},
        "pseudo_labels": {"labeler": labeler and {"class_path": labeler}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def make_network(**options: object) -> PartNetwork:
    return PartNetwork("test_resnet", **{"weights": None, **options})


def card(
    run: Path | None = None,
    *,
    data: str | None = None,
    module: ReIDModule | None = None,
    size: Preprocessing | None = SIZE,
) -> str:
    header = {"license": "cc-by-nc-4.0", "library_name": "pplr_lightning", "tags": ["pplr"]}
    module = module or PPLRModule(make_network(), max_clusters=8)
    module.preprocessing = size
    return str(write_card(header, module, run=run, data=data))


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
    assert f"- Labels: {CLUSTERS}DBSCAN.\n" in text
    assert "- Cameras: Camera ids were used in the choice of positives only, as in the pub" in text
    assert "- Start: Published weights of resnet50.\n" in text
    assert (
        "| % | first, before training | best, epoch 3 | last, epoch 4 | last - first |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| mAP | 10.0 | 80.0 | 70.0 | +60.0 |\n"
        "| rank-1 | 20.0 | 90.0 | 80.0 | +60.0 |\n"
    ) in text
    assert "Of the weights: cc-by-nc-4.0." in text
    assert "## Intended use" in text
    assert "not\nfor identifying individuals" in text


def test_tells_what_the_report_tells(run):
    text = card(run)
    told = dict(describe_setting(read_run(run)))
    for topic in ("Labels", "Cameras", "Start"):
        assert f"- {topic}: {told[topic]}\n" in text
    assert told["Evaluation"] in text


def test_says_how_the_results_came_about(run):
    assert "left out; compared by the features: global." in card(run)
    reranked = {**evaluation(4, 0.7), "rerank/mAP": 0.75}  # since it went on with another option
    write_evaluations(run, evaluation(-1, 0.1), reranked, features="both", reranking={"k1": 20})
    text = card(run)
    assert "compared by the features: both; re-ranked beside it (k1 20)." in text
    assert "| re-ranked mAP |  | 75.0 | 75.0 |  |\n" in text


def test_without_a_run():
    text = card(size=None)
    assert "- Images: not stated\n" in text
    assert "- Size and colours: not stated\n" in text
    assert "- Labels: not stated\n" in text
    assert "- Cameras: not stated\n" in text  # the labels or the batches may have used them
    assert "- Start: not stated\n" in text  # a loaded module does not know
    assert "- Size and colours: 384 x 128 (height, width), RGB" in card()
    assert "## Results\n\nNot stated.\n" in text
    module = PPLRModule(make_network(), max_clusters=8, camera_weight=0.5)
    assert "- Cameras: Camera ids were used in the camera loss (weight 0.5).\n" in card(
        module=module
    )


def test_names_model_and_method(run):
    text = card(run)
    assert "# Person re-identification with test_resnet\n" in text
    assert "was trained by `PPLRModule` of `pplr_lightning`: Part-based Pseudo Label Ref" in text
    assert "from pplr_lightning import PPLRModule\n\nmodule = PPLRModule.from_pret" in text
    assert "-> (B, 96), L2-normalised" in text


def test_of_another_method():
    pytest.importorskip("pytorch_metric_learning")
    text = card(module=SimCLRModule(make_network()))
    assert "was trained by `SimCLRModule` of `pplr_lightning`: SimCLR (Chen et al., ICML" in text
    assert "from pplr_lightning import SimCLRModule\n\nmodule = SimCLRModule.from_pret" in text
    assert "- Cameras: not stated\n" in text


class Own(ReIDModule):
    """Learns nothing.

    As an example.
    """


def test_of_a_method_of_ones_own():
    text = card(module=Own(make_network()))
    assert f"was trained by `Own` of `{__name__}`: Learns nothing.\n" in text
    assert f"from {__name__} import Own\n" in text


def test_the_librarys_methods_are_found_where_a_card_says():
    base = methods.ReIDModule
    found = {name for name in methods.__all__ if issubclass(getattr(methods, name), base)}
    assert {"PPLRModule", "SpCLModule"} < found - {"ReIDModule"} <= set(pplr_lightning.__all__)


def test_data_in_other_words(run):
    assert "- Images: crops of my own\n" in card(run, data="crops of my own")


def test_a_run_without_evaluation(run):
    (run / "summary.json").unlink()
    assert "## Results\n\nNot stated.\n" in card(run)


def test_with_cameras(run):
    write_config(run, {**DATA, "use_cameras": False}, camera_weight=0.5)
    assert "- Cameras: Camera ids were used in the camera loss (weight 0.5).\n" in card(run)


@pytest.mark.parametrize(
    ("labeler", "labels"),
    [
        (None, f"{CLUSTERS}DBSCAN."),  # the paper's
        ("pplr_lightning.labelers.dbscan.DBSCAN", f"{CLUSTERS}DBSCAN."),
        ("pplr_lightning.KMeans", f"{CLUSTERS}KMeans."),
        ("pplr_lightning.labelers.Identities", "Supervised: trained on the true identities."),
        ("pplr_lightning.labelers.Instances", "Unsupervised: every image is a class of its own;"),
        ("my.own.Labeler", "Labeler: Labeler."),
    ],
)
def test_labels(run, labeler, labels):
    write_config(run, DATA, labeler=labeler)
    assert f"- Labels: {labels}" in card(run)


def test_of_other_colours():
    size = Preprocessing((384, 128), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert "minus [0.5, 0.5, 0.5], divided by [0.25, 0.25, 0.25]" in card(size=size)


STARTS = [
    ("/home/me/last.ckpt", "{} with the weights of last.ckpt. If they were trained on identities,"),
    ("pretrained", "Published weights of {}."),
    (None, "Random weights of {}."),
]


@pytest.mark.parametrize(("weights", "start"), STARTS)
def test_start_of_a_run(run, weights, start):
    write_config(run, DATA, weights=weights)
    text = card(run)
    assert f"- Start: {start.format('resnet50')}" in text
    assert "/home/me" not in text


@pytest.mark.parametrize(("weights", "start"), STARTS[:2])
def test_start_without_a_run(tmp_path, weights, start):
    if weights != "pretrained":
        weights = str(tmp_path / "last.ckpt")
        torch.save(PPLRModule(make_network(), max_clusters=8).state_dict(), weights)
    text = card(module=PPLRModule(make_network(weights=weights), max_clusters=8))
    assert f"- Start: {start.format('test_resnet')}" in text
    assert str(tmp_path) not in text


def test_a_labeler_of_a_strangers(run):
    """Its options may be anybody's files."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    labeler = {"class_path": "my.Labels", "init_args": {"file": "/srv/jane/labels.csv"}}
    config["pseudo_labels"]["labeler"] = labeler
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    text = card(run)
    assert "- Labels: Labeler: Labels.\n" in text
    assert "jane" not in text


def test_with_cameras_in_the_labels(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    labeler = {"class_path": "pplr_lightning.CameraDBSCAN", "init_args": {"eps": 0.5}}
    config["pseudo_labels"]["labeler"] = labeler
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert "the distance between images (CameraDBSCAN)" in card(run)


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


def test_no_folder_of_a_run(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no: no such folder; give that of a run"):
        card(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no run's folder"):
        card(tmp_path / "empty")
    for text in ("a: [1", None):
        (run / "config.yaml").write_text(text) if text else (run / "config.yaml").unlink()
        with pytest.raises(FileNotFoundError, match=r"config.yaml: no such file, or none that can"):
            card(run)
