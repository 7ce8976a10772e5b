from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from torchvision.transforms import v2

from pplr_lightning.data import ImageFolder, Market1501, MarketLayout, PPLRDataModule
from pplr_lightning.data.augmentation import TrainTransform
from pplr_lightning.data.epoch_loader import EpochLoader
from pplr_lightning.data.images import read_image
from pplr_lightning.data.pseudo_labels import PseudoLabels
from pplr_lightning.functional.retrieval import GalleryIndex

from .trees import plant


def labels_for(data: PPLRDataModule) -> PseudoLabels:
    images = len(data.train_samples)
    labels = torch.arange(images) % 6 - 1
    return PseudoLabels(labels, {"agreement": torch.rand(images, 3)})


@pytest.fixture
def data(drawn: Path) -> PPLRDataModule:
    data = PPLRDataModule(
        Market1501(drawn), image_size=(64, 32), batch_size=16, iterations=3, num_workers=0
    )
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.mark.parametrize(
    ("iterations", "message"),
    [
        (
            1,
            r"1 steps sees each of 96 images 0.17 times .* raise data.iterations, up to 6 ",
        ),
        (200, r"200 steps sees .* 33.33 times .* lower data.iterations to 6 to 24, and raise"),
    ],
)
def test_warns_of_iterations_that_do_not_fit_the_images(drawn, iterations, message):
    data = PPLRDataModule(Market1501(drawn), batch_size=16, iterations=iterations, cache="none")
    with pytest.warns(UserWarning, match=message):
        data.setup("fit")


def test_training_without_labels_says_what_is_missing(data):
    with pytest.raises(MisconfigurationException, match="add the callback PseudoLabeling"):
        next(iter(data.train_dataloader()))


def test_the_iterator_of_an_epoch_takes_the_labels_at_its_first_batch(data):
    batches = iter(data.train_dataloader())  # as Lightning does, before the hook that labels
    data.pseudo_labels = labels_for(data)
    batch = next(batches)
    assert torch.equal(batch.targets, data.pseudo_labels.classes[batch.indices])
    assert batch.images.shape == (16, 3, 64, 32)
    assert len(list(batches)) == 2


def test_images_of_small_clusters_are_repeated_or_not(data):
    images = len(data.train_samples)
    data.pseudo_labels = PseudoLabels(torch.arange(images))  # each alone
    assert next(iter(data.train_dataloader())).indices.unique().numel() == 4
    data.repeat_images = False
    assert next(iter(data.train_dataloader())).indices.unique().numel() == 16


@pytest.mark.parametrize("augmentation", ["pplr", "contrastive"])
def test_images_are_normalised_as_told(drawn, augmentation):
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.1)
    options = {"image_size": (64, 32), "augmentation": augmentation, "random_erasing": 0.0}
    told, plain = (
        PPLRDataModule(Market1501(drawn), **options, **how)
        for how in ({"mean": mean, "std": std}, {"mean": (0, 0, 0), "std": (1, 1, 1)})
    )
    white = Image.new("RGB", (32, 64), (255, 255, 255))
    for name in ("eval_transform", "train_transform"):
        outputs = []
        for data in (told, plain):
            torch.manual_seed(1)
            outputs.append(getattr(data, name)(white))
        expected = v2.functional.normalize(outputs[1], mean, std)
        kept = (outputs[1] > 0).all(0)  # neither padded nor erased
        assert kept.any()
        torch.testing.assert_close(outputs[0][:, kept], expected[:, kept])


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_do_not_change_a_pixel(data, num_workers):
    data.pseudo_labels = labels_for(data)
    expected = list(data.train_dataloader())  # out of the cache
    data.num_workers, data.image_cache = num_workers, None
    for batch, other in zip(expected, data.train_dataloader(), strict=True):
        torch.testing.assert_close(batch, other, rtol=0, atol=0)


def test_evaluation_holds_query_then_gallery(data):
    batches = list(data.val_dataloader())
    is_query = torch.cat([batch.is_query for batch in batches])
    assert is_query.sum() == len(data.splits.query)
    assert len(is_query) == len(data.splits.query) + len(data.splits.gallery)


def test_labels_travel_in_the_checkpoint(data):
    data.pseudo_labels = labels_for(data)
    other = PPLRDataModule(data.dataset, image_size=(64, 32))
    other.load_state_dict(data.state_dict())
    assert torch.equal(other.pseudo_labels.classes, data.pseudo_labels.classes)
    assert torch.equal(
        other.pseudo_labels.columns["agreement"], data.pseudo_labels.columns["agreement"]
    )
    assert other.pseudo_labels.num_classes == data.pseudo_labels.num_classes


def test_there_are_no_labels_to_keep_before_the_first_epoch(data):
    assert data.state_dict() == {}


def test_a_folder_without_query_trains_but_does_not_evaluate(tmp_path):
    Image.new("RGB", (8, 16)).save(tmp_path / "1.png")
    data = PPLRDataModule(ImageFolder(tmp_path))
    data.setup("fit")
    assert data.val_dataloader() == []
    assert len(data.predict_dataloader().dataset) == 1
    with pytest.raises(ValueError, match="no query and no gallery images"):
        data.setup("test")


def test_query_without_gallery(tmp_path):
    for name in ("t/1.png", "q/1.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 16)).save(tmp_path / name)
    folder = ImageFolder(tmp_path / "t", query=tmp_path / "q", pattern=r"(?P<person>\d)")
    with pytest.raises(ValueError, match="no gallery images"):
        PPLRDataModule(folder).setup("fit")


@pytest.mark.parametrize("pattern", [None, r"(?P<camera>c)"])
def test_cameras_that_are_not_known_are_told_of(drawn, pattern):
    folder = ImageFolder(drawn / "bounding_box_train", pattern=pattern)
    known = 0 if pattern is None else 1
    with pytest.warns(UserWarning, match=f"data.use_cameras has no effect: .* of {known} known"):
        PPLRDataModule(folder, use_cameras=True).setup("fit")


def test_a_label_for_each_image(data):
    data.setup("fit")
    data.pseudo_labels = PseudoLabels(torch.arange(3))
    with pytest.raises(ValueError, match=r"pseudo_labels.classes must have shape \(96,\), got"):
        data.epoch_loader()
    with pytest.raises(ValueError, match=r"columns\['agreement'\] must have shape \(3, 2\), got"):
        PseudoLabels(torch.arange(3), {"agreement": torch.rand(4, 2)})


class TestMatches:
    """Person 1 is seen by another camera, 2 by the query's own alone, 3 by none; -1 is junk."""

    @pytest.fixture
    def folder(self, tmp_path):
        plant(
            tmp_path,
            {
                "bounding_box_train": ["0009_c1.jpg"],
                "query": ["0001_c1.jpg", "0002_c1.jpg", "0003_c1.jpg", "-1_c1.jpg"],
                "bounding_box_test": ["0001_c2.jpg", "0002_c1_2.jpg", "-1_c2.jpg"],
            },
        )
        return tmp_path

    def test_are_those_that_no_metric_counts(self, folder):
        splits = MarketLayout(folder).load()
        query, gallery = (
            [torch.tensor(column) for column in list(zip(*split, strict=True))[1:3]]
            for split in (splits.query, splits.gallery)
        )
        scores = GalleryIndex(*gallery).score(torch.rand(4, 3), *query)
        counted = [s for s, first in zip(splits.query, scores[:, 1], strict=True) if first > 0]
        matches = zip(splits.query, splits.matches(), strict=True)
        assert counted == [query for query, found in matches if found]


class TestCache:
    """What a cache serves is what the files give; where it cannot serve, the files do."""

    @pytest.fixture
    def plain(self, data):
        plain = PPLRDataModule(
            data.dataset, image_size=(64, 32), batch_size=16, iterations=3, num_workers=0,
            cache="none",
        )  # fmt: skip
        plain.setup("fit")
        data.pseudo_labels = plain.pseudo_labels = labels_for(data)
        return plain

    @pytest.mark.parametrize("loader", ["train", "labeling", "val", "test", "predict"])
    def test_gives_the_very_batches(self, data, plain, loader):
        loaders = [getattr(one, f"{loader}_dataloader")() for one in (data, plain)]
        assert data.image_cache is not None
        assert plain.image_cache is None
        assert len(loaders[0]) == len(loaders[1])
        for batch, expected in zip(*loaders, strict=True):
            assert type(batch) is type(expected)
            torch.testing.assert_close(batch, expected, rtol=0, atol=0)

    def test_reads_no_file_again(self, data, monkeypatch):
        data.pseudo_labels = labels_for(data)
        monkeypatch.setattr("pplr_lightning.data.images.read_image", None)
        for loader in (data.train_dataloader(), data.labeling_dataloader(), data.val_dataloader()):
            next(iter(loader))

    def test_decodes_each_file_once(self, drawn, monkeypatch):
        read = []

        def spy(path):
            read.append(path)
            return read_image(path)

        for module in ("decoding", "images"):
            monkeypatch.setattr(f"pplr_lightning.data.{module}.read_image", spy)
        data = PPLRDataModule(Market1501(drawn), image_size=(64, 32), num_workers=0)
        for stage in ("fit", "test"):
            data.setup(stage)
            list(data.val_dataloader())
        assert len(read) == len(set(read)) == sum(map(len, data.splits))

    def test_leaves_out_bad_images(self, tmp_path):
        for number in range(4):
            Image.new("RGB", (8, 16), (number, 0, 0)).save(tmp_path / f"{number}.png")
        (tmp_path / "1.png").write_bytes(b"cut")
        data = PPLRDataModule(
            ImageFolder(tmp_path), image_size=(8, 4), bad_images="skip", std=(1, 1, 1),
            batch_size=4, instances=2, iterations=1, num_workers=0, padding=0, random_erasing=0.0,
        )  # fmt: skip
        with pytest.warns(UserWarning, match="1 unreadable"):
            data.setup("fit")
        (batch,) = data.labeling_dataloader()
        red = (batch.images[:, 0, 0, 0] + data.mean[0]) * 255
        assert red.round().tolist() == [0, 2, 3]
        labels = torch.tensor([0, 1, 1])
        data.pseudo_labels = PseudoLabels(labels, {"agreement": torch.rand(3, 1)})
        (cached,) = data.train_dataloader()
        data.image_cache = None
        (read,) = data.train_dataloader()
        assert torch.equal(cached.images, read.images)

    @pytest.mark.parametrize("name", ["train_transform", "eval_transform"])
    def test_another_transform_is_given_the_files(self, data, name):
        data.pseudo_labels = labels_for(data)
        setattr(data, name, lambda image: torch.full((3, 2, 2), float(image.width)))
        for loader in (data.train_dataloader(), data.labeling_dataloader()):
            own = isinstance(loader, EpochLoader) == (name == "train_transform")
            assert next(iter(loader)).images.shape[1:] == ((3, 2, 2) if own else (3, 64, 32))

    @pytest.mark.parametrize("change", ["a step", "a subclass"])
    @pytest.mark.parametrize("when", ["before setup", "after setup"])
    def test_a_changed_augmentation_is_given_the_files(self, drawn, change, when):
        class Black(TrainTransform):
            def __call__(self, image):
                return super().__call__(image) * 0

        data = PPLRDataModule(Market1501(drawn), image_size=(64, 32), num_workers=0)
        if when == "after setup":
            data.setup("fit")
        if change == "a step":
            blacken = v2.Lambda(lambda image: image * 0)
            data.train_transform = v2.Compose([data.train_transform, blacken])
        else:
            data.train_transform = Black((64, 32))
        data.setup("fit")
        assert (data.image_cache is None) == (when == "before setup")
        data.pseudo_labels = labels_for(data)
        assert not next(iter(data.train_dataloader())).images.any()

    @pytest.mark.parametrize("cache", ["auto", "ram"])
    def test_contrastive_crops_need_the_files(self, drawn, cache):
        data = PPLRDataModule(Market1501(drawn), augmentation="contrastive", cache=cache)
        if cache == "auto":
            data.setup("fit")
            assert data.image_cache is None
        else:
            with pytest.raises(ValueError, match=r"data.cache=ram: the contrastive augmentation"):
                data.setup("fit")

    def test_batches_are_made_where_the_trainer_computes(self, data):
        assert data.device == torch.device("cpu")
        strategy = SingleDeviceStrategy("meta")
        data.trainer = Trainer(strategy=strategy, logger=False, enable_checkpointing=False)
        assert data.device == torch.device("cpu")  # it does not run yet
        data.trainer.state.status = TrainerStatus.RUNNING
        assert data.device == torch.device("meta")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 30}, "batch_size=30 does not divide"),
        ({"iterations": 0}, "data.iterations must be at least 1, got 0"),
        ({"eval_batch_size": 0}, "data.eval_batch_size must be at least 1, got 0"),
        ({"image_size": (0, 32)}, "image_size"),
        ({"cache": "disk"}, "cache='disk': choose one of auto, ram, none"),
        ({"use_cameras": "all"}, "use_cameras='all': choose one of True, False, spread"),
        ({"augmentation": "simclr"}, "augmentation='simclr': choose one of pplr, contrastive"),
        ({"bad_images": "ignore"}, "bad_images='ignore': choose one of raise, skip"),
        ({"std": (0.2, 0.0, 0.2)}, r"std=\(0.2, 0.0, 0.2\): must be above 0"),
        ({"std": (0.2, 0.2)}, r"std=\(0.2, 0.2\): give a finite number for each colour"),
        ({"mean": (0.5,)}, r"mean=\(0.5,\): give a finite number for each colour"),
        ({"mean": (0.5, float("nan"), 0.5)}, r"mean=\(0.5, nan, 0.5\): give a finite"),
        ({"padding": -1}, "data.padding must be at least 0, got -1"),
        ({"num_workers": -1}, "data.num_workers must be at least 0, got -1"),
        ({"seed": -1}, "data.seed must be at least 0, got -1"),
        ({"random_erasing": -0.1}, r"random_erasing=-0.1: must lie in \[0, 1\]"),
        ({"random_erasing": 1.5}, "random_erasing=1.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        PPLRDataModule(Market1501("nowhere"), **options)
