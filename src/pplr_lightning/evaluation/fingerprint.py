"""What vectors were made with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import cast, get_args

import torch
from torch import nn

from pplr_lightning.data.transforms import RGB, Preprocessing
from pplr_lightning.evaluation.extraction import FeatureKind


@dataclass(frozen=True)
class Fingerprint:
    """What vectors were made with; those of two fingerprints cannot be compared.

    Attributes:
        weights: Checksum of the network.
        features: Which of its features: `global`, `parts` or `both`.
        preprocessing: What the images went through.
    """

    weights: str
    features: FeatureKind
    preprocessing: Preprocessing

    def to_json(self) -> str:
        """Writes it as a line."""
        preprocessing = self.preprocessing._asdict()
        return json.dumps({"weights": self.weights, "features": self.features, **preprocessing})

    @classmethod
    def from_json(cls, text: str | bytes) -> Fingerprint:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: It did not write that.
        """
        try:
            values = json.loads(text)
            height, width = values["image_size"]
            mean, std = (cast(RGB, tuple(map(float, values[name]))) for name in ("mean", "std"))
            if len(mean) != 3 or len(std) != 3:
                raise ValueError(f"mean={list(mean)}, std={list(std)}: not one of each colour")
            preprocessing = Preprocessing((int(height), int(width)), mean, std)
            if values["features"] not in get_args(FeatureKind):
                raise ValueError(f"features={values['features']!r}")
            return cls(str(values["weights"]), values["features"], preprocessing)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"not the record of a model ({error})") from error

    def difference(self, other: Fingerprint) -> str:
        """Says in words what differs between two of them, of the other one first; else nothing."""
        if self.weights != other.weights:
            return f"another model (weights {other.weights[:12]}, here {self.weights[:12]})"
        if self.features != other.features:
            return f"other features ({other.features}, here {self.features})"
        for name, own, given in zip(
            Preprocessing._fields, self.preprocessing, other.preprocessing, strict=True
        ):
            if own != given:
                return f"another {name} ({list(given)}, here {list(own)})"
        return ""


def checksum(network: nn.Module) -> str:
    """Computes the SHA-256 of all tensors that a network's features depend on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
