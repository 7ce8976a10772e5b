from __future__ import annotations

import pytest
import torch

from pplr_lightning.functional.sharding import Share
from pplr_lightning.labelers import Instances, Space


def test_every_image_is_a_class_and_nothing_is_embedded():
    space = Space(lambda: pytest.fail("embedded"), share=Share(6))
    assert torch.equal(Instances().label(space), torch.arange(6))
