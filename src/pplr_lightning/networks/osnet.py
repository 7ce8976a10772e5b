"""OSNet, a small network made for re-identification, which timm does not have."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from pplr_lightning.networks.registration import register

STREAMS = "abcd"  # of a block: one to four light convolutions, of ever larger receptive fields


def convolution(
    in_channels: int, channels: int, size: int = 1, *, stride: int = 1, instance: bool = False
) -> nn.Sequential:
    """Makes a convolution with norm and ReLU.

    Args:
        in_channels: Of the map that comes in.
        channels: Of the map that goes out.
        size: Of the kernel, odd; the map keeps its size but for the stride.
        stride: Of the kernel.
        instance: Normalise each image by itself.
    """
    norm = nn.InstanceNorm2d(channels, affine=True) if instance else nn.BatchNorm2d(channels)
    kernel = nn.Conv2d(in_channels, channels, size, stride, size // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=kernel, bn=norm, relu=nn.ReLU()))


def projection(in_channels: int, channels: int) -> nn.Sequential:
    """Makes a linear 1 x 1 convolution with batch norm."""
    kernel = nn.Conv2d(in_channels, channels, 1, bias=False)
    return nn.Sequential(OrderedDict(conv=kernel, bn=nn.BatchNorm2d(channels)))


def light_convolution(channels: int) -> nn.Sequential:
    """Makes the paper's Lite 3 x 3: a linear 1 x 1 convolution, then a 3 x 3 one per channel."""
    point = nn.Conv2d(channels, channels, 1, bias=False)
    depth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    norm = nn.BatchNorm2d(channels)
    return nn.Sequential(OrderedDict(conv1=point, conv2=depth, bn=norm, relu=nn.ReLU()))


class UnifiedGate(nn.Module):
    """Weighs the channels of a stream by what the whole image shows (the unified gate).

    Args:
        channels: C of the stream; the gate's own width is a sixteenth.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, stream: Tensor) -> Tensor:
        """Weighs a map (B, C, H, W)."""
        mean = stream.mean(dim=(2, 3), keepdim=True)
        return stream * self.fc2(F.relu(self.fc1(mean))).sigmoid()


class OSBlock(nn.Module):
    """A residual block of four streams of different scales, summed under one gate.

    Args:
        in_channels: Of the map that comes in.
        channels: Of the map that goes out; the streams have a quarter.
        instance: Normalise each image's sum by itself before the last ReLU, as OSNet-IBN does.
    """

    def __init__(self, in_channels: int, channels: int, *, instance: bool = False) -> None:
        super().__init__()
        width = channels // 4
        self.conv1 = convolution(in_channels, width)
        for depth, stream in enumerate(STREAMS, start=1):
            layers = [light_convolution(width) for _ in range(depth)]
            self.add_module(f"conv2{stream}", layers[0] if depth == 1 else nn.Sequential(*layers))
        self.gate = UnifiedGate(width)
        self.conv3 = projection(width, channels)
        self.downsample = None if in_channels == channels else projection(in_channels, channels)
        self.IN = nn.InstanceNorm2d(channels, affine=True) if instance else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, channels, H, W)."""
        narrow = self.conv1(x)
        gated = [self.gate(self.get_submodule(f"conv2{stream}")(narrow)) for stream in STREAMS]
        total = gated[0] + gated[1] + gated[2] + gated[3]
        output = self.conv3(total) + (x if self.downsample is None else self.downsample(x))
        return F.relu(output if self.IN is None else self.IN(output))


class OSNet(nn.Module):
    """Omni-Scale Network (Zhou et al., ICCV 2019), up to the map that its last convolution gives.

    The names are those of torchreid, whose weights so load; its embedding layer behind the pooling
    (`fc`) is left out, as are its classifiers: this library's heads take their place. The map has a
    sixteenth of the image's height and width; no stage at the end has a stride to take out.

    Args:
        channels: Of the stem and the three stages.
        instance: With instance normalisation in stem and first stage (OSNet-IBN).
        in_chans: Channels of an image.
        num_classes: 0, as for all backbones here.
        global_pool: Empty, likewise.

    Raises:
        ValueError: It is to classify or to pool.

    Example:
        >>> import torch
        >>> OSNet((16, 64, 96, 128))(torch.randn(2, 3, 64, 32)).shape
        torch.Size([2, 128, 4, 2])
    """

    def __init__(
        self,
        channels: tuple[int, int, int, int],
        *,
        instance: bool = False,
        in_chans: int = 3,
        num_classes: int = 0,
        global_pool: str = "",
    ) -> None:
        super().__init__()
        if num_classes or global_pool:
            raise ValueError("OSNet gives its map alone: use num_classes=0 and global_pool=''")
        self.num_classes = num_classes
        self.num_features = channels[3]
        self.feature_info = [{"module": "conv5", "num_chs": channels[3], "reduction": 16}]
        self.conv1 = convolution(in_chans, channels[0], 7, stride=2, instance=instance)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = _stage(channels[0], channels[1], halve=True, instance=instance)
        self.conv3 = _stage(channels[1], channels[2], halve=True)
        self.conv4 = _stage(channels[2], channels[3], halve=False)
        self.conv5 = convolution(channels[3], channels[3])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Tells which parameters are of which layer, as timm's models do."""
        blocks = r"^conv([234])" if coarse else r"^conv([234])\.(\d+)"
        return {"stem": r"^conv1", "blocks": [(blocks, None), (r"^conv5", (9,))]}

    def forward(self, images: Tensor) -> Tensor:
        """Makes maps (B, D, H / 16, W / 16) of images (B, 3, H, W)."""
        x = self.maxpool(self.conv1(images))
        return self.conv5(self.conv4(self.conv3(self.conv2(x))))


def _stage(
    in_channels: int, channels: int, *, halve: bool, instance: bool = False
) -> nn.Sequential:
    first = OSBlock(in_channels, channels, instance=instance)
    layers = [first, OSBlock(channels, channels, instance=instance)]
    if halve:
        transition = nn.Sequential(convolution(channels, channels), nn.AvgPool2d(2))
        return nn.Sequential(*layers, transition)
    return nn.Sequential(*layers)


for _name, _channels in {
    "osnet_x1_0": (64, 256, 384, 512),
    "osnet_x0_75": (48, 192, 288, 384),
    "osnet_x0_5": (32, 128, 192, 256),
    "osnet_x0_25": (16, 64, 96, 128),
    "osnet_ibn_x1_0": (64, 256, 384, 512),
}.items():
    _published = {"first_conv": "conv1.conv", "classifier": None, "input_size": (3, 256, 128)}
    register(OSNet, _name, _published, channels=_channels, instance="ibn" in _name)
