"""YAML that somebody else may have written, read in bounded time and memory."""

from __future__ import annotations

from typing import Any

import yaml

MOST = 100_000  # values, with those that aliases repeat; a run's options are hundreds


def load_bounded(text: str) -> Any:
    """Reads YAML of plain values, as `yaml.safe_load`, unless its aliases make it large or endless.

    Nine lines of aliases of aliases are a thousand million values for whoever walks through them.

    Raises:
        yaml.YAMLError: It is no YAML, holds other than plain values, refers to itself, or is of
            more than `MOST` values when its aliases are followed.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = bounded_node(loader)
        return None if node is None else loader.construct_document(node)
    except ValueError as error:  # of a date that is none, a number of thousands of digits
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()


def bounded_node(loader: Any) -> yaml.Node | None:
    """Gives the root of what a loader of PyYAML's is to read, likewise checked."""
    try:
        node = loader.get_single_node()
        if node is not None:
            _count(node, {})
        return node
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error


def _count(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Counts a node's values; `known` has those of each node before, None of one that is open."""
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            raise yaml.YAMLError("an anchor refers to itself")
        return count
    known[id(node)] = None
    inner = node.value if isinstance(node, yaml.CollectionNode) else []
    count = 1
    for item in inner:  # of a mapping, pairs
        for one in item if isinstance(item, tuple) else (item,):
            count += _count(one, known)
            if count > MOST:
                raise yaml.YAMLError(f"more than {MOST:,} values")
    known[id(node)] = count
    return count
