"""A parser of the command line that says in one line what is wrong with it."""

from __future__ import annotations

import re
import sys
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

# What says nothing about the value in jsonargparse's account of all types that it has tried.
_NOISE = re.compile(
    "Does not validate|Subtypes: |Errors:|Given value|Problem with|expected NoneType"
)
_KEY = re.compile(r'Parser key "([^"]+)":')
_CLASS = re.compile(r"class_path[ =]'([\w.]+)'")
# Of which optimizer and lr_scheduler are, as long as no class is named.
_BASES = ("torch.optim.Optimizer", "typing.Union")


class OneLineParser(LightningArgumentParser):
    """Lightning's parser without a hundred lines of usage above every error."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends with exit code 2 and one line: the option, what is wrong with it, what was meant."""
        if not self.exit_on_error:  # of a class within: the parser around it hears of it
            super().error(message, ex)
        parser: Any = getattr(ex, "subcommand_parser", self)
        options = re.findall(r"--[\w.]+", parser.format_usage())
        help_line = f"{parser.prog.replace(' [options]', '')} --help"
        sys.stderr.write(f"error: {explain(message, options)}; see {help_line}\n")
        sys.exit(2)


def explain(message: str, options: list[str]) -> str:
    """Tells in one line what jsonargparse tells in many.

    Args:
        message: Of jsonargparse.
        options: All that there are, such as `--data.image_size`.
    """
    key = ".".join(_KEY.findall(message))
    reasons = re.sub(r"<class '([\w.]+)'>", r"\1", _KEY.sub("", message))
    lines = (line.strip().removeprefix("- ") for line in reasons.splitlines())
    lines = (re.sub(r"^Expected (an? )?", "expected ", line) for line in lines)
    text = " or ".join(dict.fromkeys(line for line in lines if line and not _NOISE.match(line)))
    if refused := re.search(r"Option '(\w+)' is not accepted", message):
        classes = _CLASS.findall(message)
        text = f"there is no option {refused[1]!r}"
        if classes and classes[-1] in _BASES:
            text = f"give the class, --{key}, before its option {refused[1]!r}"
        elif classes:
            known = list(signature(_imported(classes[-1])).parameters)
            text = f"{classes[-1]} has no option {refused[1]!r}{_guess(refused[1], known)}"
    elif missing := re.search(r"import path string: (.*)", message):
        kinds = re.findall(r"<class '(pplr_lightning[\w.]+)'>", message)
        known = [kind.__name__ for name in kinds for kind in _imported(name).__subclasses__()]
        text = f"there is no class {missing[1]!r}{_guess(missing[1], known)}"
    elif unknown := re.match(r"unrecognized arguments: (--[\w.]+)", message):
        text += _guess(unknown[1], options)
    elif "Got value" not in text and (value := re.search(r"Given value: (.*)", message)):
        text += f". Got value: {value[1]}"
    if re.search(r"expected tuple.*Got value: [^\[]", text):
        text += "; write it in brackets, such as [64,32]"
    return f"{key}: {text}" if key else text


def _imported(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)


def _guess(word: str, known: list[str]) -> str:
    """Asks whether the nearest of the known words was meant."""
    near = get_close_matches(word, known, n=1)
    return f", did you mean {near[0]}?" if near else ""
