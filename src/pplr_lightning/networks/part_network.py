"""The part-based network: one backbone, a global branch and P stripe branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, cast

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from pplr_lightning.functional.checks import check_counts, check_image_size
from pplr_lightning.networks.backbone import (
    check_feature_map,
    create_backbone,
    gives_tokens,
    read_map,
    remove_last_stride,
)
from pplr_lightning.networks.batch_norm import GroupBatchNorm, group_batch_norms
from pplr_lightning.networks.chunks import forward_in_chunks
from pplr_lightning.networks.compilation import read_map_compiled
from pplr_lightning.weights.layouts import check_weights_file, load_weights_file

PRETRAINED = "pretrained"
_NO_OPTIONS = ("self", "__class__")


class PartOutput(NamedTuple):
    """The embeddings of B images in the global and in P part spaces, not normalised.

    Attributes:
        features: Global features after the BN neck, (B, D).
        part_features: The same for each part, top to bottom, (B, D, P); P may be 0.
    """

    features: Tensor
    part_features: Tensor


class GeM(nn.Module):
    """Generalised mean (Radenović et al., TPAMI 2019): the p-th root of the mean of x^p.

    p is learned; 1 gives the average, infinity the maximum. Both steps stand on their own, so that
    one power serves the whole map and its stripes alike.

    Args:
        p: Where p starts, > 0.
    """

    def __init__(self, p: float = 3.0) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), p))

    def power(self, feature_map: Tensor) -> Tensor:
        """Raises a map (B, D, h, w) to the p-th power; values below 1e-6 count as that."""
        return feature_map.clamp(min=1e-6).pow(self.p)

    def root(self, mean: Tensor) -> Tensor:
        """Takes the p-th root of means of any shape."""
        return mean.pow(1 / self.p)


class PartNetwork(nn.Module):
    """Backbone with a global branch and P uniform stripes (Cho et al., CVPR 2022, Sec. 3.1).

    Of a ConvNet the global branch pools the whole map, of a ViT it takes the class token where
    there is one; the stripes are rows of the map or of the patch tokens. Each branch ends in a BN
    neck with a frozen bias (Luo et al., CVPRW 2019). Without parts there is the global branch
    alone, as in most of the methods that PPLR is compared with.

    The weights to start from are loaded at the first use, and not at all where others are loaded
    before: a checkpoint needs neither the hub nor the file.

    Args:
        backbone: Name of a ConvNet or ViT of timm; the paper's is `resnet50.tv_in1k`.
        image_size: Height and width of the images. A ViT takes no others, a ConvNet takes any. The
            command line takes it from the data.
        weights: What to start from: `pretrained` for the weights of the backbone that timm
            publishes (ImageNet), null for random ones, or a file: a checkpoint of this library, of
            PPLR's authors, Cluster Contrast, SpCL or OpenUnReID, or anyone's weights of the
            backbone.
        num_parts: Horizontal stripes P, 0 or more.
        last_stride: 1 sets the strides of a ConvNet's last stage to 1, which keeps twice the
            resolution; 2 leaves the backbone as it is, which is the only choice for a ViT.
        pooling: How the map and its stripes are pooled: `avg`, as the paper, or `gem`, the
            generalised mean with a learned exponent.
        norm_batch_size: Consecutive images that share batch statistics, in the backbone and the
            necks; None takes the whole batch of the process, so that results depend on the number
            of GPUs.
        chunk_size: Images whose activations are held at once in training, a multiple of
            `norm_batch_size`; None holds all of the process's. Saves memory at the price of a
            second forward pass, with the same result.
        channels_last: Keep the channels of a pixel together in memory, which a GPU's convolutions
            in half precision are made for. The same result but for rounding.
        compile: Train with a compiled backbone (`torch.compile`), whose first step waits for
            the compiler. The same result but for rounding.

    Attributes:
        options: What the constructor was given, from which the network is built again.

    Raises:
        FileNotFoundError: `weights` names a file that is not there.
        ValueError: An option is out of range, timm does not know the backbone, it has no strided
            last stage, or it gives no map with a row for each part; or the file holds no weights
            that are known.

    Example:
        >>> network = PartNetwork("resnet10t", weights=None, num_parts=2).eval()
        >>> features, part_features = network(torch.zeros(4, 3, 64, 32))
        >>> features.shape, part_features.shape
        (torch.Size([4, 512]), torch.Size([4, 512, 2]))
    """

    def __init__(
        self,
        backbone: str = "resnet50.tv_in1k",
        *,
        image_size: tuple[int, int] = (384, 128),
        weights: str | None = PRETRAINED,
        num_parts: int = 3,
        last_stride: int = 1,
        pooling: Literal["avg", "gem"] = "avg",
        norm_batch_size: int | None = 16,
        chunk_size: int | None = None,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        options = {name: value for name, value in locals().items() if name not in _NO_OPTIONS}
        super().__init__()
        check_counts("network", least=0, num_parts=num_parts)
        check_image_size("image_size", image_size)
        if norm_batch_size is not None and norm_batch_size < 2:
            raise ValueError(f"norm_batch_size={norm_batch_size}: a group needs at least 2 images")
        if chunk_size is not None and (
            norm_batch_size is None or chunk_size < 1 or chunk_size % norm_batch_size
        ):
            raise ValueError(
                f"chunk_size={chunk_size}: must hold whole groups of batch statistics, so be a "
                f"multiple of norm_batch_size={norm_batch_size}"
            )
        if pooling not in ("avg", "gem"):
            raise ValueError(f"pooling={pooling!r}: choose 'avg' (as the paper) or 'gem'")
        self.options = options
        self.backbone_name = backbone
        self.image_size = (image_size[0], image_size[1])
        self.num_parts = num_parts
        self.norm_batch_size = norm_batch_size
        self.chunk_size = chunk_size
        self.backbone = create_backbone(backbone, self.image_size)
        refused: list[str] = []  # told together: two mistakes are to take one attempt
        if pooling == "gem" and gives_tokens(self.backbone):
            refused.append(
                f"pooling='gem': means maps without negative values, which the tokens of backbone "
                f"{backbone!r} have; choose 'avg'"
            )
        if last_stride == 1:
            with _noted(refused):
                remove_last_stride(self.backbone, backbone)
        elif last_stride != 2:
            refused.append(f"last_stride={last_stride}: choose 1 (as the paper) or 2")
        group_batch_norms(self.backbone, norm_batch_size)
        self.channels_last = channels_last
        self.backbone.to(memory_format=self.memory_format)
        self.is_compiled = compile
        self.num_features = cast(int, self.backbone.num_features)
        with _noted(refused):
            check_feature_map(
                self.backbone, backbone, image_size=self.image_size, num_parts=num_parts
            )
        self.gem = GeM() if pooling == "gem" else None
        self.neck = _neck(self.num_features, norm_batch_size)
        self.part_necks = nn.ModuleList(
            _neck(self.num_features, norm_batch_size) for _ in range(num_parts)
        )
        self._start_from(weights, refused)
        self.backbone.register_load_state_dict_pre_hook(_note_weights)
        self.register_state_dict_pre_hook(_load_weights)

    def _start_from(self, weights: str | None, refused: list[str]) -> None:
        """Checks the weights to start from, which wait for the first use.

        Raises:
            FileNotFoundError, ValueError: They are refused, or something else is already.
        """
        if weights not in (None, PRETRAINED):
            with _noted(refused, first=True):
                check_weights_file(self, weights)
        if refused:
            raise ValueError("; and ".join(refused))
        self.weights = weights
        cast(Any, self.backbone).waits_for_weights = weights is not None

    @property
    def memory_format(self) -> torch.memory_format:
        """How images and maps lie in memory; not kept, as torch cannot pickle it."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def load_weights(self) -> None:
        """Loads the weights to start from, unless the backbone was given some already.

        After an error the next use tries again: it must not be random in silence.

        Raises:
            FileNotFoundError: The file is gone.
            ValueError: They cannot be had, or do not fit.
        """
        backbone = cast(Any, self.backbone)
        if not getattr(backbone, "waits_for_weights", False):  # one put in its place has no mark
            return
        backbone.waits_for_weights = False  # already: what loads reads the state
        try:
            if self.weights == PRETRAINED:
                self._load_pretrained_backbone()
            else:
                rank_zero_info(load_weights_file(self, cast(str, self.weights)))
        except Exception:
            backbone.waits_for_weights = True
            raise

    def expect_weights(self) -> None:
        """Leaves the weights to start from where they are: others are about to be loaded."""
        cast(Any, self.backbone).waits_for_weights = False

    def _load_pretrained_backbone(self) -> None:
        try:
            pretrained = create_backbone(self.backbone_name, self.image_size, pretrained=True)
        except Exception as error:  # hub, network and file errors of many libraries
            raise ValueError(
                f"the pretrained weights of {self.backbone_name} cannot be loaded ({error}); check "
                "the connection to the Hugging Face hub, or set network.weights to a file, or to "
                "null for random ones (`labels`: --weights to a file)"
            ) from error
        self.backbone.load_state_dict(pretrained.state_dict())

    def forward(self, images: Tensor) -> PartOutput:
        """Embeds images (B, 3, H, W)."""
        return self.forward_pooled(images)[0]

    def forward_pooled(self, images: Tensor) -> tuple[PartOutput, Tensor]:
        """Embeds images (B, 3, H, W); gives their global features before the neck, too, (B, D).

        Some methods compare distances of these, as their scale is the map's and not the neck's.
        """
        self.load_weights()
        if not self.training or self.chunk_size is None or len(images) <= self.chunk_size:
            rows = self._forward(images)
        else:
            chunks = forward_in_chunks(self, self._forward, images, self.chunk_size)
            rows = cast(Any, tuple(map(torch.cat, zip(*chunks, strict=True))))
        features, part_features, pooled = rows
        return PartOutput(features, part_features), pooled

    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # In training alone, where every batch has one shape; the last block of an evaluation has
        # its own and would be compiled for itself.
        read = read_map_compiled if self.is_compiled and self.training else read_map
        # (B, D, h, w), (B, D) or None
        feature_map, class_token = read(
            self.backbone, images.contiguous(memory_format=self.memory_format)
        )
        if not torch.is_autocast_enabled(images.device.type):
            return self._branches(feature_map, class_token)
        # Half precision has too few digits for features that are compared; the heads are a
        # hundredth of the arithmetic.
        with torch.autocast(images.device.type, enabled=False):
            token = None if class_token is None else class_token.float()
            return self._branches(feature_map.float(), token)

    def _branches(
        self, feature_map: Tensor, class_token: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pools a map (B, D, h, w) for the branches, and applies their necks.

        Returns:
            Global and part features, and the global ones before the neck.
        """
        pooled, stripes = self._pool(feature_map)
        pooled = pooled if class_token is None else class_token
        features = self.neck(pooled)
        if not self.num_parts:  # and no list of no tensors, which torch.export cannot save
            return features, stripes, pooled
        parts = [
            neck(stripe) for neck, stripe in zip(self.part_necks, stripes.unbind(2), strict=True)
        ]
        return features, torch.stack(parts, dim=2), pooled

    def _pool(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """Pools a map (B, D, h, w) whole, (B, D), and in stripes, (B, D, P)."""
        if self.gem is not None:
            feature_map = self.gem.power(feature_map)
        pooled, stripes = feature_map.mean(dim=(2, 3)), self._pool_stripes(feature_map)
        if self.gem is not None:
            pooled, stripes = self.gem.root(pooled), self.gem.root(stripes)
        return pooled, stripes

    def _pool_stripes(self, feature_map: Tensor) -> Tensor:
        rows, parts = feature_map.shape[2], self.num_parts
        if not parts:
            return feature_map.new_empty(*feature_map.shape[:2], 0)
        if rows % parts == 0:
            return feature_map.unflatten(2, (parts, -1)).mean(dim=(3, 4))
        # Adaptive pooling, whose stripes share a row where the rows do not divide; torch's own has
        # no deterministic gradient on a GPU.
        bounds = [(part * rows // parts, -(-(part + 1) * rows // parts)) for part in range(parts)]
        stripes = [feature_map[:, :, top:bottom].mean(dim=(2, 3)) for top, bottom in bounds]
        return torch.stack(stripes, dim=2)


@contextmanager
def _noted(refused: list[str], *, first: bool = False) -> Iterator[None]:
    """Notes what is refused within, to be told with what else is."""
    try:
        yield
    except ValueError as error:
        refused.insert(0 if first else len(refused), str(error))


def _neck(num_features: int, norm_batch_size: int | None) -> GroupBatchNorm:
    neck = GroupBatchNorm(num_features, group_size=norm_batch_size)
    neck.bias.requires_grad_(False)
    return neck


def _note_weights(backbone: Any, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Notes that a backbone is given weights, which those to start from must not overwrite.

    Not where `strict=False` loads others alone, such as a classifier's.
    """
    if any(name.startswith(prefix) for name in state_dict):
        backbone.waits_for_weights = False


def _load_weights(network: nn.Module, prefix: str, keep_vars: bool) -> None:
    """Loads the weights before they are read, so that nobody saves random ones for them."""
    cast(PartNetwork, network).load_weights()
