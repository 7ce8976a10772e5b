from __future__ import annotations

from bad_input_cases import KINDS, LINE, TAKEN, Bench, reason
from bad_inputs import trials

from ..processes import SERVER


def test_a_sample_ends_in_one_line_each(tmp_path):
    bench = Bench(tmp_path)
    assert bench.server is SERVER  # which has imported what commands need
    bench.prepare()
    results = list(trials(bench, sample=2, seed=0))
    assert len(results) == 2 * len(KINDS)
    wrong = [
        result
        for result in results
        if result.end != LINE and not (result.end == TAKEN and reason(result.case))
    ]
    assert not wrong
