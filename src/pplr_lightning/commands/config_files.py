"""What options may hold: YAML without surprises, from config files and the command line."""

from __future__ import annotations

import os
import re
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml
from jsonargparse import Namespace
from jsonargparse._loaders_dumpers import get_yaml_default_loader

from pplr_lightning.report.bounded_yaml import bounded_node, load_bounded

# Of a config; without their options they would be passed over in silence.
SECTIONS = ("data", "evaluation", "figures", "model", "pseudo_labels", "record", "trainer")
LONGEST_NUMBER = 400  # characters; Python itself refuses to read some thousands


def check_configs(words: list[str]) -> None:
    """Reads the config files of a command line, each of which has to be YAML without surprises.

    Raises:
        ValueError: One is no YAML, says something twice or nothing of a section, or holds a number
            that YAML 1.1, by which it is read, takes for another one than it looks like.
    """
    for previous, word in zip(["", *words], words, strict=False):
        value = word.partition("=")[2] if word.startswith("-") else word
        if os.path.exists(value) and not (os.path.isfile(value) or os.path.isdir(value)):
            raise ValueError(f"{value}: no regular file; a pipe would be waited for without end")
        name = word.removeprefix("--config=") if word.startswith("--config=") else word
        if (name is word and previous not in ("--config", "-c")) or not Path(name).is_file():
            continue
        try:
            text = Path(name).read_text(encoding="utf-8")
            content = load_bounded(text)
        except OSError as error:
            raise ValueError(f"{name}: cannot be read ({error.strerror})") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{name}: no YAML: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{name}: holds no options; write them as `data: {{batch_size: 64}}`")
        _check_nodes(f"{name}, ", yaml.compose(text, yaml.SafeLoader), set())
        if others := [key for key in content if not isinstance(key, str)]:
            raise ValueError(f"{name}: {others[0]!r} is no option's name")
        for section in SECTIONS:
            if section not in content or isinstance(content[section], (dict, str)):
                continue
            what = "empty" if content[section] is None else "no mapping"
            raise ValueError(f"{name}: {section} is {what}; leave it out, or give its options")


def _checked_node(loader: yaml.SafeLoader) -> yaml.Node | None:
    """Reads what stands on the command line or in a file that it names as `check_configs` does.

    Raises:
        yaml.YAMLError: It would be refused there; jsonargparse then takes it for text.
    """
    node = bounded_node(super(_Loader, loader))
    try:
        _check_nodes("", node, set())
    except ValueError as error:
        raise yaml.YAMLError(str(error)) from error
    return node


# jsonargparse reads most with a loader that can be set, and numbers always with this one.
_Loader: Any = get_yaml_default_loader()


def guard_values() -> None:
    """Has jsonargparse read what is no config file as `check_configs` does, too."""
    _Loader.get_single_node = _checked_node


def _check_nodes(name: str, node: yaml.Node | None, seen: set[int]) -> None:
    """Refuses keys that stand twice and numbers in base 8 or 60, in nodes that were not `seen`."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    where = f"{name}line {node.start_mark.line + 1}"
    if isinstance(node, yaml.ScalarNode):
        if re.search("[\ud800-\udfff]", node.value):  # some of PyYAML's loaders fail of it
            raise ValueError(f"{where}: holds half a character; write the whole one")
        number = node.tag.endswith((":int", ":float")) and not node.style
        if number and len(node.value) > LONGEST_NUMBER:
            raise ValueError(f"{where}: a number of {len(node.value)} characters; write fewer")
        if number and re.match(r"[-+]?(0[0-7_]+$|.*:)", node.value):
            read = yaml.safe_load(node.value)
            raise ValueError(
                f"{where}: {node.value} would be read as {read}: write that, or 'quotes' for a text"
            )
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_nodes(name, item, seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in lines:
                raise ValueError(
                    f"{name}line {line}: {key.value} stands in line {lines[key.value]}, too; "
                    "give it once"
                )
            lines[key.value] = line
            _check_nodes(name, value, seen)


def check_nulls(options: Any, where: str = "") -> None:
    """Refuses a null for an option of a class that takes none; jsonargparse lets it pass.

    Raises:
        ValueError: There is one.
    """
    if isinstance(options, (list, tuple)):
        for item in options:
            check_nulls(item, where)
    if not isinstance(options, (Namespace, dict)):
        return
    for name, value in options.items(branches=True) if isinstance(options, Namespace) else ():
        if "." not in name:
            check_nulls(value, f"{where}.{name}".lstrip(".").removesuffix(".init_args"))
    path, given = options.get("class_path"), options.get("init_args") or {}
    known = signature(resolve_name(path)).parameters if isinstance(path, str) and given else {}
    for name, option in known.items():
        if name not in given or given[name] is not None or option.default is None:
            continue
        if option.annotation is not option.empty and "None" not in str(option.annotation):
            raise ValueError(f"{where}.{name}: null is no value of it; leave it out, or give one")
