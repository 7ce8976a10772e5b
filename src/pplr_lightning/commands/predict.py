"""`predict`: the images of a folder to vectors, in a file for `index`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, get_args

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch.utils.data import DataLoader

from pplr_lightning.callbacks.prediction import PartWriter
from pplr_lightning.commands.parser import OneLineParser
from pplr_lightning.commands.training import PPLRCLI, check_numbers, check_processes, run_cli
from pplr_lightning.data import EvalBatch, ImageFolder
from pplr_lightning.data.image_loader import whole
from pplr_lightning.data.images import ReadableImages, outlive_sigterm
from pplr_lightning.data.sampler import ShardSampler
from pplr_lightning.data.transforms import EvalTransform
from pplr_lightning.evaluation.extraction import FeatureKind
from pplr_lightning.functional.checks import MOST_WORKERS, check_counts, check_image_size
from pplr_lightning.gallery.embedding_parts import EmbeddingParts, remove_joined
from pplr_lightning.methods import ReIDModule

DESCRIPTION = """
Embeds the images of a folder with a trained model. A run that is killed goes on where it stopped
when it is started again. With --config and the options of `fit`, embeds query and gallery of a
training's data set instead, or its training images where it has none, into embeddings.parquet in
the run's folder.
"""
TRAINER = ("accelerator", "strategy", "devices", "num_nodes", "precision", "enable_progress_bar")


class FolderOptions:
    """What to embed, and how.

    Args:
        root: Folder of images, searched recursively.
        pattern: Regular expression searched in each path below `root`, with the named groups
            `person` and `camera` or one of them; for instance `cam(?P<camera>[0-9]+)/`. They must
            match numbers, which mean the same in every file that a gallery is made of.
        table: CSV or Parquet with the columns `path`, relative to `root`, and `camera_id` and/or
            `person_id`, numbers as well; instead of `pattern`.
        image_size: Height and width, instead of those that the checkpoint says.
        batch_size: Images per step and process.
        num_workers: Loader processes per process.
    """

    def __init__(
        self,
        root: str,
        pattern: str | None = None,
        table: str | None = None,
        image_size: tuple[int, int] | None = None,
        batch_size: int = 128,
        num_workers: int = 4,
    ) -> None:
        check_counts("data", batch_size=batch_size)
        check_counts("data", least=0, most=MOST_WORKERS, num_workers=num_workers)
        if image_size is not None:
            check_image_size("data.image_size", image_size)
        self.folder = ImageFolder(root, pattern=pattern, table=table, only_numbers=True)
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers


def run(args: list[str]) -> Path | PPLRCLI:
    """Embeds a folder, or with `--config` the data set of a training.

    Returns:
        The file written for a folder; of a training's data set, what `run_cli` gives.
    """
    if any(word.split("=")[0] in ("--config", "-c") for word in args):
        return run_cli(["predict", *args])
    options = _parse(args)
    out, data = Path(options.out), options.data
    if out.exists():
        remove_joined(out)
        raise ValueError(f"{out} is there already: name another file or remove it")
    module = ReIDModule.load_from_checkpoint(options.ckpt_path)
    module.predict_kind = options.features
    samples = data.folder.load().train
    fingerprint = module.fingerprint(kind=options.features, image_size=data.image_size)
    check_numbers(options.trainer)
    trainer = Trainer(  # before anything is written, as it may refuse its options
        **options.trainer,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[] if options.trainer.enable_progress_bar is False else [RichProgressBar()],
    )
    check_processes(trainer)
    parts = EmbeddingParts(
        out, samples, fingerprint, block_size=data.batch_size, precision=trainer.precision
    )
    trainer.callbacks.append(PartWriter(parts))  # type: ignore[attr-defined]
    images = _Images(parts, module.prepared(data.image_size).transform(), data.num_workers)
    # All may be done but for joining the parts.
    warnings.filterwarnings("ignore", message="Total length of `DataLoader` across ranks is zero")
    trainer.predict(module, datamodule=images, return_predictions=False)
    return out


class _Images(LightningDataModule):
    """This rank's share of the images that are left to do."""

    def __init__(self, parts: EmbeddingParts, transform: EvalTransform, num_workers: int) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.parts = parts
        self.transform = transform
        self.num_workers = num_workers
        self.left: list[int] = []

    def setup(self, stage: str) -> None:
        """Has all ranks see the same list, before one of them writes."""
        trainer = self.trainer
        self.left = trainer.strategy.broadcast(self.parts.left())  # type: ignore[union-attr]
        size, images = self.parts.block_size, len(self.parts.samples)
        left = sum(min(size, images - block * size) for block in self.left)
        if trainer.is_global_zero and left < images:  # type: ignore[union-attr]
            print(f"{images - left:,} of {images:,} images are done already")

    def predict_dataloader(self) -> DataLoader[EvalBatch]:
        """Gives them, a block a batch."""
        images = ReadableImages(self.parts.samples, self.transform)
        trainer: Any = self.trainer
        sampler = ShardSampler(
            images,
            block_size=self.parts.block_size,
            blocks=self.left,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        return DataLoader(
            images,
            sampler=sampler,
            batch_size=self.parts.block_size,
            collate_fn=whole,
            num_workers=self.num_workers,
            worker_init_fn=outlive_sigterm,
        )


def _parse(args: list[str]) -> Namespace:
    parser = OneLineParser(prog="python -m pplr_lightning predict", description=DESCRIPTION)
    parser.add_argument("--ckpt_path", type=str, required=True, help="checkpoint of a training")
    parser.add_argument("--out", type=str, required=True, help="the parquet file to write")
    parser.add_argument(
        "--features",
        type=FeatureKind,
        default="global",
        help=f"one of {', '.join(get_args(FeatureKind))}",
    )
    parser.add_class_arguments(FolderOptions, "data")
    others = {name for name in Trainer.__init__.__annotations__ if name not in TRAINER}
    parser.add_class_arguments(Trainer, "trainer", instantiate=False, skip=others)
    return parser.instantiate_classes(parser.parse_args(args))
