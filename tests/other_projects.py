"""Models with the tensors' names and the test features of the projects whose checkpoints are read.

Written from the names and shapes of their checkpoints and from what their models compute; each in
evaluation only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
import torchvision
from torch import nn


def resnet(depth: int) -> nn.Module:
    """A ResNet with random weights and statistics, the stride of whose last stage is 1."""
    network = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    first = network.layer4[0]
    for layer in (first.conv1, first.conv2, first.downsample[0]):
        layer.stride = (1, 1)
    del network.fc, network.avgpool
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            randomise(module)
    return network


def randomise(norm: nn.Module) -> nn.Module:
    for tensor in (norm.weight.data, norm.running_var):
        tensor.uniform_(0.5, 1.5)
    for tensor in (norm.bias.data, norm.running_mean):
        tensor.normal_(std=0.1)
    norm.num_batches_tracked.fill_(20_000)
    return norm


def numbered(network: nn.Module) -> nn.Sequential:
    """The layers without names of their own, as `base.0` to `base.7`."""
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return nn.Sequential(*(getattr(network, name) for name in names))


class Power(nn.Module):
    """The exponent of generalised-mean pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([2.7]))

    def forward(self, feature_map):
        return (feature_map.clamp(min=1e-6) ** self.p).mean((2, 3)) ** (1 / self.p)


class Average(nn.Module):
    def forward(self, feature_map):
        return feature_map.flatten(2).mean(2)


class PPLR(nn.Module):
    """The model of PPLR's authors."""

    def __init__(self, *, depth: int = 50, parts: int = 3, rows: int = 20) -> None:
        super().__init__()
        network = resnet(depth)
        width = network.layer4[-1].bn2.num_features if depth < 50 else 2048
        self.base = numbered(network)
        self.parts = [str(part) for part in range(parts)]
        for branch in ["", *self.parts]:
            setattr(self, f"bnneck{branch}", randomise(nn.BatchNorm1d(width)))
            setattr(self, f"classifier{branch}", nn.Linear(width, rows, bias=False))

    def forward(self, images):
        """The normalised features of the image (B, D) and of its stripes (B, D, P)."""
        feature_map = self.base(images)
        stripes = nnf.adaptive_avg_pool2d(feature_map, (len(self.parts), 1)).squeeze(3)
        parts = [
            nnf.normalize(getattr(self, f"bnneck{part}")(stripe))
            for part, stripe in zip(self.parts, stripes.unbind(2), strict=True)
        ]
        whole = self.bnneck(nnf.adaptive_avg_pool2d(feature_map, 1).flatten(1))
        return nnf.normalize(whole), torch.stack(parts, 2)


class Contrast(nn.Module):
    """The model of SpCL, and with `gem` that of Cluster Contrast."""

    def __init__(self, *, depth: int = 18, gem: bool = False) -> None:
        super().__init__()
        network = resnet(depth)
        self.base = numbered(network)
        self.gap = Power() if gem else Average()
        self.feat_bn = randomise(nn.BatchNorm1d(512 if depth < 50 else 2048))

    def forward(self, images):
        return nnf.normalize(self.feat_bn(self.gap(self.base(images))))


class OpenUnReID(nn.Module):
    """The model of OpenUnReID, which is normalised after it."""

    def __init__(self, *, depth: int = 18, gem: bool = True) -> None:
        super().__init__()
        self.backbone = resnet(depth)
        self.global_pooling = Power() if gem else Average()
        self.head = nn.Module()
        self.head.feat_bn = randomise(nn.BatchNorm1d(512 if depth < 50 else 2048))
        self.classifier = nn.Linear(self.head.feat_bn.num_features, 30, bias=False)

    def forward(self, images):
        feature_map = numbered(self.backbone)(images)
        return nnf.normalize(self.head.feat_bn(self.global_pooling(feature_map)))


def wrapped(model: nn.Module, prefix: str = "module.") -> dict[str, torch.Tensor]:
    """The state dict as `DataParallel` gives it."""
    return {prefix + name: tensor for name, tensor in model.state_dict().items()}
