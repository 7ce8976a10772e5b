"""A parser of the command line that says in one line what is wrong with it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from jsonargparse._loaders_dumpers import get_yaml_default_loader
from lightning.pytorch.cli import LightningArgumentParser
from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from pplr_lightning.report.bounded_yaml import bounded_node, load_bounded

# Of a line of jsonargparse's account, what says only where it stands.
_LAYOUT = re.compile(r"^[\s-]*(Type .* expects a function or a callable class: )?")
# Lines that say nothing about the value, beside those that `explain` reads.
_NOISE = re.compile(r"Does not validate|Errors:|Given value|Expected a (path|<class 'NoneType'>)|$")
# Of a config; without their options they would be passed over in silence.
SECTIONS = ("data", "evaluation", "figures", "model", "pseudo_labels", "record", "trainer")
# Classes that stand for the option as long as none is named.
_BASES = ("torch.optim.Optimizer", "typing.Union")
LONGEST_NUMBER = 400  # characters; Python itself refuses to read some thousands
_ASKED: set[str] = set()  # environment variables that options were taken from


class OneLineParser(LightningArgumentParser):
    """Lightning's parser without a hundred lines of usage above every error."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends with exit code 2 and one line: the option, what is wrong with it, what was meant."""
        if not self.exit_on_error:  # of a class within: the parser around it hears of it
            super().error(message, ex)
        parser: Any = getattr(ex, "subcommand_parser", self)
        options = re.findall(r"--([\w.]+)", parser.format_usage())
        help_line = f"{parser.prog.replace(' [options]', '')} --help"
        sys.stderr.write(f"error: {explain(message, options)}; see {help_line}\n")
        sys.exit(2)


def explain(message: str, options: list[str]) -> str:
    """Tells in one line what jsonargparse tells in an indented account of all that it has tried.

    What it tried first was meant: the first reason counts.

    Args:
        message: Of jsonargparse.
        options: All that there are, such as `data.image_size`.
    """
    lines = iter([_LAYOUT.sub("", line) for line in message.splitlines()])
    keys: list[str] = []
    classes: list[str] = []  # that it tried to make
    kinds: list[str] = []  # of which they should have been
    reason = ""
    for line in lines:
        if key := re.match(r'Parser key "([^"]+)":\s*(.*)', line):
            keys.append(key[1])
            line = key[2]
        if found := re.match(r"Problem with given class_path '([\w.]+)'", line):
            classes.append(found[1])
        elif line.startswith("Subtypes:"):
            kinds = re.findall(r"<class '([\w.]+)'>", line)
        elif not _NOISE.match(line):
            reason = line
            break
    where = f"{'.'.join(keys)}: " if keys else ""
    if refused := re.match(r"Option '([^']+)' is not accepted", reason):
        classes += re.findall(r"class_path='([\w.]+)'", reason)
        return where + _refused(refused[1], ".".join(keys), classes)
    if missing := re.match(r"Expected a dot import path string: (.*)", reason):
        return f"{where}there is no class {missing[1]!r}" + _guess(missing[1], _names_of(kinds))
    if unknown := re.search(r"(?:arguments: --|accept option ')([\w.]+)", reason):
        group = re.match(r"Group '([\w.]+)'", reason)
        name = f"{group[1]}.{unknown[1]}" if group else unknown[1]
        known = [o for o in [*options, *_inner_options()] if not name.startswith(f"{o}.")]
        return where + reason + _guess_path(name, known)
    return where + _wrong_value(reason, lines)


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
    known = signature(_imported(path)).parameters if isinstance(path, str) and given else {}
    for name, option in known.items():
        if name not in given or given[name] is not None or option.default is None:
            continue
        if option.annotation is not option.empty and "None" not in str(option.annotation):
            raise ValueError(f"{where}.{name}: null is no value of it; leave it out, or give one")


def note_environment() -> None:
    """Has OmegaConf note which environment variables a config takes by `${oc.env:NAME}`."""

    def noted(name: str, *default: Any) -> str | None:
        _ASKED.add(name)
        return oc.env(name, *default)

    _ASKED.clear()
    # The name before OmegaConf 2.4, which warns of it.
    register = getattr(OmegaConf, "register_resolver", None) or OmegaConf.register_new_resolver
    register("oc.env", noted, replace=True)


def without_environment(options: Any) -> Any:
    """Puts `${oc.env:NAME}` back in place of what a config took from the environment.

    It may be a password, and options are passed on with reports and checkpoints. Read as a config
    again, in the same environment, they are what they were.

    Args:
        options: Plain values, nested in any way; numbers are left as they are.
    """
    if isinstance(options, dict):
        return {name: without_environment(value) for name, value in options.items()}
    if isinstance(options, (list, tuple)):
        return type(options)(without_environment(value) for value in options)
    if isinstance(options, str):
        # The longest first, of which others may be parts.
        for name in sorted(_ASKED, key=lambda name: -len(os.environ.get(name, ""))):
            value = os.environ.get(name)
            if value and (value == options or len(value) > 3):
                options = options.replace(value, f"${{oc.env:{name}}}")
    return options


def _refused(option: str, key: str, classes: list[str]) -> str:
    """Tells of an option that a class does not have."""
    owner = classes[-1] if classes else "it"
    if owner in _BASES:
        return f"give the class, --{key}, before its option {option!r}"
    try:
        known = list(signature(_imported(owner)).parameters)
    except (ImportError, AttributeError, ValueError, TypeError):
        known = []
    guess = _guess(option, known)
    if not guess:  # perhaps one of a class within
        guess = _guess_path(f"{key}.{option}", _inner_options())
    return f"{owner} has no option {option!r}{guess}"


def _wrong_value(reason: str, rest: Iterator[str]) -> str:
    """Tells of a value that is of none of the types, which stand in the lines that follow."""
    given = re.search(r"Got value: .*", reason)
    reasons = [reason]
    for line in rest:
        if re.match(r"Expected an? <class '(?!NoneType)", line):
            reasons.append(line)
        elif value := re.match(r"Given value: (.*?)(?:\. Got value: .*)?$", line):
            reasons[-1] += "" if given else f". Got value: {value[1]}"
            break
    text = " or ".join(re.sub(r"^Expected (an? )?", "expected ", one) for one in reasons)
    text = re.sub(r"(Got value: .*?)\. Got value: .*", r"\1", text)
    if re.search(r"expected <class 'tuple'>.*Got value: [^\[]", text):
        text += "; write numbers in brackets, as [1,2]"
    return re.sub(r"<class '([\w.]+)'>", r"\1", text)


def _inner_options() -> list[str]:
    """Lists the options of the classes that a training has by default, which no usage names."""
    classes = {
        "model": "pplr_lightning.PPLRModule",
        "model.network": "pplr_lightning.PartNetwork",
        "pseudo_labels.labeler": "pplr_lightning.DBSCAN",
    }
    names = {at: signature(_imported(path)).parameters for at, path in classes.items()}
    return ["config", *(f"{at}.{name}" for at, found in names.items() for name in found)]


def _guess_path(name: str, known: list[str]) -> str:
    """Asks whether another option was meant: one deeper in the section, or in a section alike."""
    section, _, leaf = name.rpartition(".")
    deeper = [o for o in known if o.startswith(f"{section.partition('.')[0]}.")]
    for option in deeper:
        if option.rpartition(".")[2] == leaf:
            return f", did you mean {option}?"
    near = _guess(name, known, cutoff=0.8)
    if near or not section:
        return near
    leaves = {o.rpartition(".")[2]: o for o in deeper}
    found = get_close_matches(leaf, leaves, n=1, cutoff=0.75)
    return f", did you mean {leaves[found[0]]}?" if found else ""


def _names_of(kinds: list[str]) -> list[str]:
    """Names the classes of these kinds that this package offers."""
    found = [_imported(kind) for kind in kinds if kind.startswith("pplr_lightning.")]
    for kind in found:
        found += kind.__subclasses__()
    own = [kind for kind in found if kind.__module__.startswith("pplr_lightning.")]
    rooms = {kind: import_module(".".join(kind.__module__.split(".")[:2])) for kind in own}
    return [
        kind.__name__
        for kind, room in rooms.items()
        if kind.__name__ in getattr(room, "__all__", ())
    ]


def _imported(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)


def _guess(word: str, known: list[str], cutoff: float = 0.6) -> str:
    """Asks whether the nearest of the known words was meant."""
    near = get_close_matches(word, known, n=1, cutoff=cutoff)
    return f", did you mean {near[0]}?" if near else ""
