"""A network that embeds people, with all that it takes to use it; nothing of a training."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

from lightning.pytorch import LightningModule
from torch import Tensor

from pplr_lightning import networks
from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.evaluation.embedding import ImageLike, embed_images
from pplr_lightning.evaluation.extraction import FeatureKind, unit_features
from pplr_lightning.evaluation.fingerprint import Fingerprint, checksum
from pplr_lightning.lightning_internals import trainer_of
from pplr_lightning.networks import PartNetwork
from pplr_lightning.sharing.hub import HubMixin
from pplr_lightning.weights.checkpoints import check_weights, differences, read_checkpoint

M = TypeVar("M", bound="Embedder")


class Embedder(HubMixin, LightningModule):
    """Embeds images, and is saved and built again.

    Args:
        network: Embeds the images; the one that is tested, exported and shared.

    Attributes:
        preprocessing: What images go through before the network sees them: that of the data module
            last worked with, or else of the checkpoint; None where neither says.
    """

    def __init__(self, network: PartNetwork) -> None:
        super().__init__()
        self.network = network
        self.preprocessing: Preprocessing | None = None

    @property
    def all_networks(self) -> list[PartNetwork]:
        """The tested network, first, and those that a method trains beside it."""
        others = (m for m in self.modules() if isinstance(m, PartNetwork))
        return [self.network, *(one for one in others if one is not self.network)]

    def branches(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embeds images (B, 3, H, W) as L2-normalised global (B, D) and part features (B, D, P)."""
        return unit_features(self.network(images))

    def forward(self, images: Tensor) -> Tensor:
        """Embeds images (B, 3, H, W) as L2-normalised global features (B, D), which are tested."""
        return self.branches(images)[0]

    def embed(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        kind: FeatureKind = "global",
        image_size: tuple[int, int] | None = None,
        batch_size: int = 128,
        bgr: bool = False,
    ) -> Tensor:
        """Embeds images as they are; needs no Trainer.

        They are prepared as those of the evaluation in training were, before a training as the
        network's weights and image size want it, and embedded in evaluation mode on the module's
        device.

        Args:
            images: Files, PIL images, tensors or NumPy arrays (uint8, or floating-point in [0, 1];
                3 x H x W or H x W x 3); many, or a single one.
            kind: Which features, as of `join_features`.
            image_size: Height and width to resize them to, instead of those of the training.
            batch_size: Images at a time, 1 or more.
            bgr: NumPy arrays are of blue, green and red, as OpenCV reads them.

        Returns:
            L2-normalised float32 vectors on the CPU, (N, D).

        Raises:
            ValueError: A file, a tensor or an array is no image, or `batch_size` is below 1.
        """
        prepared = self.prepared(image_size)
        return embed_images(
            self.network, images, prepared, kind=kind, batch_size=batch_size, bgr=bgr
        )

    def prepared(self, image_size: tuple[int, int] | None = None) -> Preprocessing:
        """Returns what images go through, with another image size where one is given."""
        if self.preprocessing is not None:
            own = self.preprocessing
        else:
            weights = cast(dict[str, Any], self.network.backbone.pretrained_cfg)
            own = Preprocessing(
                self.network.image_size, tuple(weights["mean"]), tuple(weights["std"])
            )
        size = own.image_size if image_size is None else (image_size[0], image_size[1])
        return own._replace(image_size=size)

    def fingerprint(
        self, *, kind: FeatureKind = "global", image_size: tuple[int, int] | None = None
    ) -> Fingerprint:
        """Tells what the vectors of `embed` are made with."""
        return Fingerprint(checksum(self.network), kind, self.prepared(image_size))

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls: type[M],
        checkpoint_path: str | Path,
        map_location: Any = "cpu",
        *,
        strict: bool = True,
        weights_only: bool = True,
        **options: Any,
    ) -> M:
        """Builds the module that a checkpoint was made of, from what the checkpoint says.

        Unlike Lightning's own it calls nothing that the file may name. Called on `ReIDModule`
        itself it finds the class among those that are imported.

        Args:
            checkpoint_path: Of a run of this library.
            map_location: Device that the module is to be on.
            strict: Refuse weights that do not fit; false takes those of a name and shape that do.
            weights_only: Must be true: tensors and plain values alone are read.
            **options: Of the constructor, in place of the checkpoint's.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no checkpoint of such a module, or holds more than tensors and values.
        """
        if not weights_only:
            raise ValueError("weights_only=False: a checkpoint's code is never executed; use True")
        checkpoint = read_checkpoint(checkpoint_path)
        try:
            stored = {n: checkpoint[n] for n in ("method", "network")}
            module = cls.from_options({**checkpoint["hyper_parameters"], **stored}, options)
            module.strict_loading = strict
            module.on_load_checkpoint(checkpoint)
            module.load_state_dict(_fitting(checkpoint, module, strict), strict=strict)
        except KeyError as error:
            raise ValueError(f"{checkpoint_path}: a checkpoint without {error}") from error
        except (TypeError, ValueError, AttributeError) as error:  # of another version, or damaged
            raise ValueError(f"{checkpoint_path}: {error}") from error
        return module.to(map_location)

    @classmethod
    def from_options(cls: type[M], stored: dict[str, Any], options: dict[str, Any]) -> M:
        """Builds a module without weights from the `options` of another, with some in their place.

        Called on `ReIDModule` itself it finds the class among those that are imported.

        Raises:
            ValueError: They are another method's or another version's, or the network is of a kind
                that this library does not know.
        """
        # Lightning notes names of its own (`_instantiator`), which are never called.
        given = {n: v for n, v in stored.items() if n not in ("method", "network") and n[0] != "_"}
        if "network" not in options:
            kind, init_args = stored["network"]["class_path"], stored["network"]["init_args"]
            if kind not in networks.__all__:
                raise ValueError(f"network {kind}: give the network that the weights are of")
            network = getattr(networks, kind)(**{**init_args, "weights": None})
            network.options = init_args  # which say what the weights once started from
            given["network"] = network
        found = _find_class(cls, str(stored["method"]))
        strange = sorted(set(given) - set(inspect.signature(found.__init__).parameters))
        if strange:
            raise ValueError(f"{found.__name__} has no option {strange[0]}: of another version?")
        return found(**{**given, **options})

    @property
    def options(self) -> dict[str, Any]:
        """What the module is built again from, in plain values; its network's within."""
        taken = inspect.signature(type(self).__init__).parameters  # a base class may note more
        own = {n: v for n, v in self.hparams.items() if n in taken and n != "network"}
        network = {"class_path": type(self.network).__name__, "init_args": self.network.options}
        return {"method": type(self).__name__, **own, "network": network}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes what the module is and what images go through, for those who use these weights."""
        options = self.options
        for name in ("method", "network"):
            checkpoint[name] = options.pop(name)
        checkpoint["hyper_parameters"] = options
        if self.preprocessing is not None:
            checkpoint["preprocessing"] = self.preprocessing._asdict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks a checkpoint.

        Raises:
            ValueError: It is another model's.
        """
        for network in self.all_networks:
            network.expect_weights()
        if self.strict_loading:
            name = getattr(trainer_of(self), "ckpt_path", None) or "the checkpoint"
            check_weights(checkpoint["state_dict"], self.state_dict(), str(name))
        if self.preprocessing is None and "preprocessing" in checkpoint:
            self.preprocessing = Preprocessing(**checkpoint["preprocessing"])


def _fitting(checkpoint: dict[str, Any], module: Embedder, strict: bool) -> dict[str, Any]:
    """Returns a checkpoint's weights; where not all must fit, those of a shape that does."""
    weights, own = checkpoint["state_dict"], module.state_dict()
    if strict:
        return weights
    return {n: w for n, w in weights.items() if not differences({n: w}, {n: own.get(n)})}


def _find_class(cls: type[M], name: str) -> type[M]:
    """Finds a class of this name: `cls`, or the last made of it, as a notebook makes them anew."""
    classes = [cls]
    for one in classes:
        classes += one.__subclasses__()
    found = next((one for one in [cls, *reversed(classes)] if one.__name__ == name), None)
    if found is None:
        raise ValueError(f"the model is a {name}, which is no {cls.__name__} that is imported")
    return found
