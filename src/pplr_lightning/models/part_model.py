"""The part-based model: one backbone, a global branch and P stripe branches."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from pplr_lightning.models.backbone import (
    check_feature_map,
    create_backbone,
    gives_tokens,
    read_map,
    remove_last_stride,
)
from pplr_lightning.models.chunks import forward_in_chunks
from pplr_lightning.models.classifier import ClusterClassifier
from pplr_lightning.models.compilation import read_map_compiled
from pplr_lightning.models.norm import GroupBatchNorm, group_batch_norms
from pplr_lightning.models.pooling import GeM


class PartOutput(NamedTuple):
    """What the model gives for B images, in training and in evaluation alike.

    Attributes:
        features: Global features after the BN neck, not normalised, (B, D).
        part_features: The same for each part, top to bottom, (B, D, P).
        logits: Scores of the C clusters from the global features, (B, C).
        part_logits: The same from each part's features, (B, C, P).
    """

    features: Tensor
    part_features: Tensor
    logits: Tensor
    part_logits: Tensor


class Head(nn.Module):
    """One branch: BN neck with a frozen bias (Luo et al., CVPRW 2019), then the classifier."""

    def __init__(self, num_features: int, max_clusters: int, norm_batch_size: int | None) -> None:
        super().__init__()
        self.neck = GroupBatchNorm(num_features, group_size=norm_batch_size)
        self.neck.bias.requires_grad_(False)
        self.classifier = ClusterClassifier(num_features, max_clusters)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Turns pooled features (B, D) into features (B, D) and logits (B, C)."""
        features = self.neck(pooled)
        return features, self.classifier(features)


class PartModel(nn.Module):
    """Backbone with a global branch and P uniform stripes (Cho et al., CVPR 2022, Sec. 3.1).

    Of a ConvNet the global branch pools the whole map, of a ViT it takes the class token where
    there is one; the stripes are rows of the map or of the patch tokens.

    Args:
        backbone: Name of a ConvNet or ViT of timm; the paper's is `resnet50.tv_in1k`.
        image_size: Height and width of the images. A ViT takes no others, a ConvNet takes any.
        num_parts: Horizontal stripes P.
        last_stride: 1 sets the strides of a ConvNet's last stage to 1, which keeps twice the
            resolution; 2 leaves the backbone as it is, which is the only choice for a ViT.
        pooling: How the map and its stripes are pooled: `avg`, as the paper, or `gem`, the
            generalised mean with a learned exponent.
        norm_batch_size: Images that share batch statistics, in the backbone and the necks; None
            takes the whole batch of the process, so that results depend on the number of GPUs.
        max_clusters: Classifier rows, the most clusters that can be trained on.
        chunk_size: Images whose activations are held at once in training; None holds all of the
            process's. The rest is computed again in the backward pass, with the same result.
        channels_last: Keep the channels of a pixel together in memory, which a GPU's convolutions
            in half precision are made for. The same result but for rounding.
        compile: Train with a compiled backbone (`torch.compile`), whose first step waits for
            the compiler. The same result but for rounding.

    Raises:
        ValueError: An option is out of range, timm does not know the backbone, it has no strided
            last stage, or it gives no map with a row for each part.
    """

    def __init__(
        self,
        backbone: str = "resnet50.tv_in1k",
        *,
        image_size: tuple[int, int] = (384, 128),
        num_parts: int = 3,
        last_stride: int = 1,
        pooling: Literal["avg", "gem"] = "avg",
        norm_batch_size: int | None = 16,
        max_clusters: int = 3000,
        chunk_size: int | None = None,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if num_parts < 1:
            raise ValueError(f"num_parts={num_parts}: a part model needs at least one part")
        if norm_batch_size is not None and norm_batch_size < 2:
            raise ValueError(f"norm_batch_size={norm_batch_size}: a group needs at least 2 images")
        if max_clusters < 1:
            raise ValueError(f"max_clusters={max_clusters}: must be at least 1")
        if chunk_size is not None and (
            norm_batch_size is None or chunk_size < 1 or chunk_size % norm_batch_size
        ):
            raise ValueError(
                f"chunk_size={chunk_size}: must hold whole groups of batch statistics, so be a "
                f"multiple of norm_batch_size={norm_batch_size}"
            )
        self.chunk_size = chunk_size
        if pooling not in ("avg", "gem"):
            raise ValueError(f"pooling={pooling!r}: choose 'avg' (as the paper) or 'gem'")
        self.backbone_name = backbone
        self.image_size = (image_size[0], image_size[1])
        self.num_parts = num_parts
        self.norm_batch_size = norm_batch_size
        self.backbone = create_backbone(backbone, self.image_size)
        if pooling == "gem" and gives_tokens(self.backbone):
            raise ValueError(
                f"pooling='gem': means maps without negative values, which the tokens of backbone "
                f"{backbone!r} have; choose 'avg'"
            )
        if last_stride == 1:
            remove_last_stride(self.backbone, backbone)
        elif last_stride != 2:
            raise ValueError(f"last_stride={last_stride}: choose 1 (as the paper) or 2")
        group_batch_norms(self.backbone, norm_batch_size)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.backbone.to(memory_format=self.memory_format)
        self.is_compiled = compile
        self.num_features = cast(int, self.backbone.num_features)
        check_feature_map(self.backbone, backbone, image_size=self.image_size, num_parts=num_parts)
        self.gem = GeM() if pooling == "gem" else None
        self.head = Head(self.num_features, max_clusters, norm_batch_size)
        self.part_heads = nn.ModuleList(
            Head(self.num_features, max_clusters, norm_batch_size) for _ in range(num_parts)
        )

    @property
    def max_clusters(self) -> int:
        """The most clusters that can be trained on."""
        return len(self.head.classifier.weight)

    def forward(self, images: Tensor) -> PartOutput:
        """Computes features and logits of images (B, 3, H, W)."""
        if not self.training or self.chunk_size is None or len(images) <= self.chunk_size:
            return self._forward(images)
        chunks = forward_in_chunks(self, self._forward, images, self.chunk_size)
        return PartOutput(*(torch.cat(rows) for rows in zip(*chunks, strict=True)))

    def _forward(self, images: Tensor) -> PartOutput:
        # In training alone, where every batch has one shape; the last block of an evaluation has
        # its own and would be compiled for itself.
        read = read_map_compiled if self.is_compiled and self.training else read_map
        # (B, D, h, w), (B, D) or None
        feature_map, class_token = read(
            self.backbone, images.contiguous(memory_format=self.memory_format)
        )
        if not torch.is_autocast_enabled(images.device.type):
            return self._branches(feature_map, class_token)
        # Half precision has too few digits for features that are compared and for their logits;
        # the heads are a hundredth of the arithmetic.
        with torch.autocast(images.device.type, enabled=False):
            token = None if class_token is None else class_token.float()
            return self._branches(feature_map.float(), token)

    def _branches(self, feature_map: Tensor, class_token: Tensor | None) -> PartOutput:
        """Pools a map (B, D, h, w) for the branches, and applies their heads."""
        pooled, stripes = self._pool(feature_map)
        features, logits = self.head(pooled if class_token is None else class_token)
        parts = [
            head(stripe) for head, stripe in zip(self.part_heads, stripes.unbind(2), strict=True)
        ]
        return PartOutput(
            features=features,
            part_features=torch.stack([part for part, _ in parts], dim=2),
            logits=logits,
            part_logits=torch.stack([scores for _, scores in parts], dim=2),
        )

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
        if rows % parts == 0:
            return feature_map.unflatten(2, (parts, -1)).mean(dim=(3, 4))
        # Adaptive pooling, whose stripes share a row where the rows do not divide; torch's own has
        # no deterministic gradient on a GPU.
        bounds = [(part * rows // parts, -(-(part + 1) * rows // parts)) for part in range(parts)]
        stripes = [feature_map[:, :, top:bottom].mean(dim=(2, 3)) for top, bottom in bounds]
        return torch.stack(stripes, dim=2)

    def reset_classifiers(self, centroids: Tensor, part_centroids: Tensor) -> None:
        """Overwrites classifier rows with centroids (K, D) and (K, D, P)."""
        self.head.classifier.reset(centroids)
        for head, part in zip(self.part_heads, part_centroids.unbind(2), strict=True):
            cast(Head, head).classifier.reset(part)

    def load_pretrained_backbone(self) -> None:
        """Loads the backbone's weights that timm publishes, from the hub or its cache.

        Raises:
            ValueError: The weights cannot be had.
        """
        try:
            pretrained = create_backbone(self.backbone_name, self.image_size, pretrained=True)
        except Exception as error:  # hub, network and file errors of many libraries
            raise ValueError(
                f"the pretrained weights of {self.backbone_name} cannot be loaded ({error}); check "
                "the connection to the Hugging Face hub, or set model.pretrained to false"
            ) from error
        self.backbone.load_state_dict(pretrained.state_dict())
