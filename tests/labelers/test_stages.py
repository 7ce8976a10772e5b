from __future__ import annotations

import time
from contextlib import contextmanager

import pytest

from pplr_lightning.labelers.stages import Stages


def test_adds_up_the_seconds_of_each_stage():
    stages = Stages()
    begin = time.perf_counter()
    for _ in range(2):
        with stages("search"):
            time.sleep(0.02)
    with stages("means"):
        pass
    end = time.perf_counter()
    assert 0.04 <= stages.seconds["search"] <= end - begin
    assert 0 <= stages.seconds["means"] < 0.02
    assert begin < stages.ended <= end


def test_tells_of_each_stage_and_of_what_it_counts():
    told = []

    @contextmanager
    def show(name, count):
        told.append((name, count))
        yield lambda: told.append("one")
        told.append("end")

    stages = Stages(show)
    with stages("search"):
        pass
    with stages("parts", 2) as advance:
        advance()
    assert told == [("search", None), "end", ("parts", 2), "one", "end"]


def test_a_stage_that_fails_is_not_counted():
    stages = Stages()
    with pytest.raises(LookupError), stages("search"):
        raise LookupError
    assert stages.seconds == {}
