from __future__ import annotations

import pytest
import torch

from pplr_lightning.data import Sample
from pplr_lightning.functional.sharding import Share
from pplr_lightning.labelers import Identities, Space


def test_numbers_the_known_ones_and_embeds_nothing():
    persons = torch.tensor([7, 3, -1, 9] * 10)
    space = Space(lambda: pytest.fail("embedded"), share=Share(40), persons=persons)
    assert torch.equal(Identities().label(space), torch.tensor([1, 0, -1, 2] * 10))
    assert torch.equal(persons, torch.tensor([7, 3, -1, 9] * 10))


def test_identities_that_are_not_known():
    samples = [Sample("x.jpg", -1, 1), Sample("y.jpg", 4, 1)]
    with pytest.raises(ValueError, match="Identities needs a data set with person ids: use DBSCAN"):
        Identities().check(samples)
    Identities().check([*samples, Sample("z.jpg", 5, 1)])
    with pytest.raises(ValueError, match="give the space persons"):
        Identities().label(Space.of(torch.eye(4)))
