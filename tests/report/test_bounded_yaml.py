from __future__ import annotations

import pytest
import yaml

from pplr_lightning.report.bounded_yaml import MOST, load_bounded

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    ["", "5", "a: [1, {b: 2.5}]", "a: &x {b: 1}\nc: *x\nd: {<<: *x, e: null}", "- &x [1]\n- *x"],
)
def test_reads_what_yaml_does(text):
    assert load_bounded(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, f"more than {MOST:,} values"),
        ("a: &a\n  b: *a", "refers to itself"),
        ("a: &a [{x: 1}, *a]", "refers to itself"),
        ("a: [", "while parsing"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: 1\n---\nb: 2", "expected a single document"),
    ],
)
def test_refuses(text, reason):
    with pytest.raises(yaml.YAMLError, match=reason):
        load_bounded(text)


def test_counts_what_is_written_out_as_well():
    assert len(load_bounded(f"[{'1,' * (MOST - 2)}1]")) == MOST - 1
    with pytest.raises(yaml.YAMLError, match="more than"):
        load_bounded(f"[{'1,' * MOST}]")
