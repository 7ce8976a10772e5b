"""A parser of the command line that says in one line what is wrong with it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from pkgutil import resolve_name
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from pplr_lightning.commands.config_files import guard_values

# Of a line of jsonargparse's account, what says only where it stands.
_LAYOUT = re.compile(r"^[\s-]*(Type .* expects a function or a callable class: )?")
# Lines that say nothing about the value, beside those that `explain` reads.
_NOISE = re.compile(r"Does not validate|Errors:|Given value|Expected a (path|<class 'NoneType'>)|$")
# Classes that stand for the option as long as none is named.
_BASES = ("torch.optim.Optimizer", "typing.Union")


class OneLineParser(LightningArgumentParser):
    """Lightning's parser without a hundred lines of usage above every error."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        guard_values()
        super().__init__(*args, **kwargs)

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


def _refused(option: str, key: str, classes: list[str]) -> str:
    """Tells of an option that a class does not have."""
    owner = classes[-1] if classes else "it"
    if owner in _BASES:
        return f"give the class, --{key}, before its option {option!r}"
    try:
        known = list(signature(resolve_name(owner)).parameters)
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
        if re.match(r"Expected an? (<class '(?!NoneType)|typing.Literal)", line):
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
    names = {at: signature(resolve_name(path)).parameters for at, path in classes.items()}
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
    found = [resolve_name(kind) for kind in kinds if kind.startswith("pplr_lightning.")]
    for kind in found:
        found += kind.__subclasses__()
    own = [kind for kind in found if kind.__module__.startswith("pplr_lightning.")]
    rooms = {kind: import_module(".".join(kind.__module__.split(".")[:2])) for kind in own}
    return [
        kind.__name__
        for kind, room in rooms.items()
        if kind.__name__ in getattr(room, "__all__", ())
    ]


def _guess(word: str, known: list[str], cutoff: float = 0.6) -> str:
    """Asks whether the nearest of the known words was meant."""
    near = get_close_matches(word, known, n=1, cutoff=cutoff)
    return f", did you mean {near[0]}?" if near else ""
