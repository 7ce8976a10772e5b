"""The directive `options`: what a class takes, read from its signature and its docstring."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any, ClassVar

import docstring_parser
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata


class Options(SphinxDirective):
    """Describes every option of a class: name, type, default, description.

    The argument is the dotted path of the class; `:section:` is what stands before the names of
    its options.
    """

    required_arguments = 1
    option_spec: ClassVar = {"section": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Writes the options as `confval` directives and has them parsed as a part of the page."""
        module, _, name = self.arguments[0].rpartition(".")
        try:
            described = list(describe(getattr(importlib.import_module(module), name)))
        except (ImportError, AttributeError, ValueError) as error:
            raise self.error(f"options of {self.arguments[0]}: {error}") from error
        prefix = self.options["section"]
        text = "\n\n".join(_entry(f"{prefix}.{option}", *rest) for option, *rest in described)
        return self.parse_text_to_nodes(text)


def describe(cls: type) -> Iterator[tuple[str, str, str | None, str]]:
    """Yields name, type, default (None where there is none) and description of each option.

    Raises:
        ValueError: An option has no description.
    """
    # The docstring is of the class that defines the constructor.
    owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
    found = docstring_parser.parse(inspect.getdoc(owner) or "", docstring_parser.Style.GOOGLE)
    texts = {param.arg_name: param.description for param in found.params}
    for name, parameter in inspect.signature(cls).parameters.items():
        if not texts.get(name):
            raise ValueError(f"{owner.__name__} does not describe its option {name}")
        default = None if parameter.default is parameter.empty else _literal(parameter.default)
        yield name, str(parameter.annotation), default, " ".join(str(texts[name]).split())


def _literal(value: Any) -> str:
    """Writes a default as YAML has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return f"[{', '.join(_literal(item) for item in value)}]"
    return str(value)


def _entry(name: str, kind: str, default: str | None, text: str) -> str:
    state = "required" if default is None else f"default `{default}`"
    return f"```{{confval}} {name}\n`{kind}`, {state}\n\n{text}\n```"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Registers the directive."""
    app.add_directive("options", Options)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
