"""Query-to-gallery evaluation in fit, validate and test."""

from __future__ import annotations

import json
import time
from typing import Any, cast, get_args

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console
from rich.table import Table

from pplr_lightning.atomic_write import write_whole
from pplr_lightning.callbacks.progress import show_stage
from pplr_lightning.callbacks.shared import History, compile_before_work, run_folder
from pplr_lightning.data import EvalBatch
from pplr_lightning.data.datasets import UNKNOWN, Clothes, Protocol, Splits, check_queries
from pplr_lightning.distributed import all_gather_list, log_own
from pplr_lightning.evaluation.extraction import FeatureKind, join_features
from pplr_lightning.evaluation.metric import RERANKED, ReIDRetrieval
from pplr_lightning.functional.reranking import K1, K2, LAMBDA
from pplr_lightning.methods.base import ReIDModule
from pplr_lightning.report.history import Row, first_best_last

POOLED = "pooled"


class RetrievalEvaluation(Callback):
    """Logs `val/mAP`, `val/mINP`, `val/rank-k` (or `test/...`) of the images evaluated.

    In `fit` the whole evaluation also runs before training, as Lightning's sanity check, so that
    what training brought can be told. At the end a table shows the first, the best and the last
    epoch, and `summary.json` in the run's folder holds all of them. Best is best on the evaluation
    set itself, and so no result to publish: the last is. Both say which features were compared,
    whether tracklets were pooled or the gallery re-ranked, and which cameras' matches count.

    Attributes:
        variant: Of the data set (`ReIDDataset`); said beside results.

    Args:
        topk: Ranks of the CMC to report.
        before_training: Evaluate before training too.
        test_features: Images are compared by the global feature (`global`, as published), by their
            `parts` or by `both`, every branch of equal weight (`join_features`).
        same_camera: Count matches under the query's own camera, too: the way to evaluate people of
            one camera. Published results leave them out. A query's own file is never its match.
        rerank: Report the metrics of the re-ranked gallery, too (`rerank_distance`), beside those
            without: as `val/rerank/mAP` and so on, and in lines of their own.
        protocol: Which gallery a query is compared with (`ReIDRetrieval`); null takes that of the
            data set.
        clothes: Count matches in other clothes than the query's alone (`changed`), or in the same
            (`same`), where the data set names clothes; null counts both.
        pool_tracklets: Where query and gallery have tracklets, compare these, each by the mean of
            its frames' features, instead of frames.

    Raises:
        ValueError: `test_features` is none of the three, `topk` holds no ranks, or `protocol` or
            `clothes` are none or do not go with the others.
    """

    def __init__(
        self,
        *,
        topk: tuple[int, ...] = (1, 5, 10),
        before_training: bool = True,
        test_features: FeatureKind = "global",
        same_camera: bool = False,
        rerank: bool = False,
        protocol: Protocol | None = None,
        clothes: Clothes | None = None,
        pool_tracklets: bool = True,
    ) -> None:
        if test_features not in get_args(FeatureKind):
            raise ValueError(
                f"evaluation.test_features={test_features!r}: choose one of "
                f"{', '.join(get_args(FeatureKind))}"
            )
        self.metric = ReIDRetrieval(
            topk=tuple(topk),
            same_camera=same_camera,
            rerank=rerank,
            protocol=protocol or "standard",
            clothes=clothes,
        )
        self.protocol = protocol
        self.pool_tracklets = pool_tracklets
        self.variant = ""
        self._tracklets: str | None = None  # whether they are pooled, where there are any
        self.before_training = before_training
        self.test_features: FeatureKind = test_features
        self._history = History()
        self._started = 0.0  # clock at the begin of this evaluation

    @property
    def _compared(self) -> str:
        """Tells what the values of this evaluation can be compared with."""
        protocol = self.metric.protocol
        return (
            self.test_features
            + (" with same_camera" if self.metric.same_camera else "")
            + (f" by {protocol}" if protocol != "standard" else "")
            + (f", clothes {self.metric.clothes}" if self.metric.clothes else "")
            + (", tracklets" if self._tracklets == POOLED else "")
            + (f" ({self.variant})" if self.variant else "")
        )

    @property
    def setting(self) -> dict[str, Any]:
        """What a stranger must know to compare the values, as `summary.json` has it."""
        return {
            "features": self.test_features,
            "same_camera": self.metric.same_camera,
            "reranking": {"k1": K1, "k2": K2, "lambda": LAMBDA} if self.metric.rerank else None,
            "protocol": self.metric.protocol,
            "clothes": self.metric.clothes,
            "tracklets": self._tracklets,
            "variant": self.variant,
        }

    @property
    def history(self) -> list[Row]:
        """The evaluations of the last `fit`, by epoch; epoch -1 is before training."""
        return self._history.under("val/")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compiles; lets the sanity check see every image where a first evaluation is wanted.

        In `predict`, the features given are those that are tested.

        Raises:
            MisconfigurationException: The module is not of this library.
            ValueError: No query has a match in the gallery, or there are too few images to re-rank.
        """
        if not isinstance(pl_module, ReIDModule):
            raise MisconfigurationException("RetrievalEvaluation evaluates a PPLRModule or its kin")
        self._history = History.of(trainer)
        if stage == "predict":
            pl_module.predict_kind = self.test_features
        else:
            self._check_images(trainer)
        compile_before_work()
        self.metric.to(pl_module.device)
        if (
            stage == "fit"
            and self._wants_first(trainer)
            and not getattr(trainer, "fast_dev_run", False)
        ):
            trainer.num_sanity_val_steps = float("inf")

    def _check_images(self, trainer: Trainer) -> None:
        """Refuses, before any work, what would fail at the end of the first evaluation."""
        data = getattr(trainer, "datamodule", None)
        dataset = getattr(data, "dataset", None)
        self.variant, self._tracklets = getattr(dataset, "variant", ""), None
        self.metric.use(self.protocol or cast(Protocol, getattr(dataset, "protocol", "standard")))
        splits = getattr(data, "splits", None)
        if splits is None:
            return
        if any(one.tracklet_id != UNKNOWN for one in (*splits.query, *splits.gallery)):
            self._tracklets = POOLED if self.pool_tracklets else "not pooled"
        splits = self.compared(splits)
        clothes = self.metric.clothes
        if clothes and all(one.clothes_id == UNKNOWN for one in splits.query):
            raise ValueError(
                f"evaluation.clothes={clothes}: the data set does not say what the people of its "
                "queries wear; set it to null"
            )
        check_queries(splits, same_camera=self.metric.same_camera, clothes=clothes)
        images = len(splits.query) + len(splits.gallery)
        if self.metric.rerank and 0 < images <= max(K1, K2):
            raise ValueError(
                f"evaluation.rerank compares the {K1} nearest of an image, the data set has "
                f"{images} query and gallery images: set it to false"
            )

    def compared(self, splits: Splits) -> Splits:
        """Lists what is compared: of tracklets that are pooled the first frames, or all images.

        Raises:
            ValueError: The frames of a tracklet are of two people.
        """
        return splits.first_frames() if self.pool_tracklets else splits

    def _wants_first(self, trainer: Trainer) -> bool:
        # A run that goes on from a checkpoint has had its first evaluation.
        return self.before_training and trainer.ckpt_path is None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the last evaluation's features, and starts the clock."""
        self._started = time.perf_counter()
        self.metric.reset()
        self.metric.to(pl_module.device)

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: EvalBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Takes a batch's features."""
        features = join_features(**outputs, kind=self.test_features)
        self.metric.update(
            features,
            batch.person_ids,
            batch.camera_ids,
            batch.is_query,
            batch.indices,
            batch.files,
            batch.tracklets if self.pool_tracklets else None,
            batch.clothes,
        )

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Computes, logs and remembers the metrics."""
        if trainer.sanity_checking and not self._wants_first(trainer):
            return
        if self._is_partial(trainer.val_dataloaders):
            return
        values = self._compute(trainer)
        named = {f"val/{name}": value for name, value in values.items()}
        if trainer.sanity_checking:
            # Lightning keeps a sanity check's values out of the loggers; as a baseline it counts.
            for logger in trainer.loggers:
                logger.log_metrics(named, step=0)
        else:
            log_own(pl_module, named)
        if trainer.state.fn == TrainerFn.FITTING:
            row = self._history.row(trainer)
            row |= named
            seconds = time.perf_counter() - self._started
            row["time/evaluation"] = row.get("time/evaluation", 0.0) + seconds
        else:
            self.print_table({"validation": values})

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Computes, logs and prints the metrics."""
        if self._is_partial(trainer.test_dataloaders):
            return
        values = self._compute(trainer)
        log_own(pl_module, {f"test/{name}": value for name, value in values.items()})
        self.print_table({"test": values})

    def _compute(self, trainer: Trainer) -> dict[str, float]:
        with show_stage(trainer, "scoring", None):
            values = self.metric.compute()
        self.metric.reset()
        return values

    def _is_partial(self, loader: Any) -> bool:
        """Tells, with a warning and the same on every rank, when images were left out."""
        seen = sum(all_gather_list([len(indices) for indices in self.metric.indices]))
        total = len(loader.dataset)
        if seen < total:
            rank_zero_warn(f"evaluation saw {seen} of {total} images: no metrics are reported")
        return seen < total

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints first, best and last epoch and writes `summary.json`."""
        if not self.history or not trainer.is_global_zero:
            return
        summary = first_best_last(self.history, by="mAP")
        self.print_table(summary)
        text = json.dumps({**self.setting, **summary, "history": self.history}, indent=2)
        write_whole(run_folder(trainer) / "summary.json", text + "\n")

    @rank_zero_only
    def print_table(self, rows: dict[str, Row]) -> None:
        """Prints one line per named evaluation, in percent, and one for its re-ranked gallery.

        Args:
            rows: What `ReIDRetrieval` computed, by name, with the epoch where there is one.
        """
        lines: dict[str, Row] = {}
        for label, values in rows.items():
            epoch = values.get("epoch")
            at = "" if epoch is None else " (before training)" if epoch < 0 else f" (epoch {epoch})"
            for name, value in values.items():
                if name != "epoch":
                    kind = ", re-ranked" if name.startswith(RERANKED) else ""
                    line = lines.setdefault(label + at + kind, {})
                    line[name.removeprefix(RERANKED)] = value
        names = list(dict.fromkeys(name for line in lines.values() for name in line))
        reranking = f"re-ranked: k1 {K1}, k2 {K2}, lambda {LAMBDA}"
        reranking = reranking if self.metric.rerank else "no re-ranking"
        cameras = "; matches under the query's own camera count" if self.metric.same_camera else ""
        protocol = self.metric.protocol
        caption = (
            f"features: {self.test_features}; {reranking}{cameras}"
            + (f"; protocol: {protocol}" if protocol != "standard" else "")
            + (f"; clothes: {self.metric.clothes}" if self.metric.clothes else "")
            + (f"; tracklets: {self._tracklets}" if self._tracklets else "")
            + (f"; {self.variant}" if self.variant else "")
        )
        table = Table("", title="Retrieval, %", caption=caption)
        for name in names:
            table.add_column(name, justify="right")
        for label, line in lines.items():
            table.add_row(label, *(f"{100 * line[n]:.1f}" if n in line else "" for n in names))
        Console().print(table)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves out a checkpoint's evaluations of another kind: rows of a table compare."""
        before = self._history.features
        # Older checkpoints do not say which variant it was, of which MSMT17 had some.
        alike = self._compared, self._compared.removesuffix(f" ({self.variant})")
        if self.history and before not in alike:
            rank_zero_warn(
                f"the evaluations so far compared: {before}; those to come compare: "
                f"{self._compared}; the former are left out of the table"
            )
            self._history.forget("val/")
        self._history.features = self._compared
