"""The directives `options` and `kinds`: what classes take, read from signatures and docstrings."""

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
            cls = getattr(importlib.import_module(module), name)
            text = _entries(cls, self.options["section"])
        except (ImportError, AttributeError, ValueError) as error:
            raise self.error(f"options of {self.arguments[0]}: {error}") from error
        return self.parse_text_to_nodes(text)


class Kinds(SphinxDirective):
    """Describes every class that a section may name: those of one base that a room exports.

    The argument is the dotted path of the base; `:section:` stands before the options of the class
    that is the section's `:default:`, the name of the class before those of any other.
    """

    required_arguments = 1
    option_spec: ClassVar = {
        "section": directives.unchanged_required,
        "default": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        """Writes a heading, what the class is, and its options; the default comes first."""
        room, _, name = self.arguments[0].rpartition(".")
        try:
            module = importlib.import_module(room)
            kinds = list(exported(module, getattr(module, name)))
            kinds.sort(key=lambda kind: kind.__name__ != self.options["default"])
            text = "\n\n".join(self._describe(kind) for kind in kinds)
        except (ImportError, AttributeError, ValueError) as error:
            raise self.error(f"kinds of {self.arguments[0]}: {error}") from error
        return self.parse_text_to_nodes(text, allow_section_headings=True)

    def _describe(self, kind: type) -> str:
        name = kind.__name__
        is_default = name == self.options["default"]
        summary = docstring_parser.parse(inspect.getdoc(kind) or "").short_description
        entries = _entries(kind, self.options["section"] if is_default else name)
        note = " The default." if is_default else ""
        return f"### {name}\n\n{summary}{note}\n\n{entries or 'It has no options.'}"


def exported(module: Any, base: type) -> Iterator[type]:
    """Yields the classes of `module.__all__` that are made of `base`, in their order."""
    for name in module.__all__:
        found = getattr(module, name)
        if isinstance(found, type) and issubclass(found, base) and found is not base:
            yield found


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


def _entries(cls: type, prefix: str) -> str:
    return "\n\n".join(_entry(f"{prefix}.{name}", *rest) for name, *rest in describe(cls))


def _entry(name: str, kind: str, default: str | None, text: str) -> str:
    state = "required" if default is None else f"default `{default}`"
    return f"```{{confval}} {name}\n`{kind}`, {state}\n\n{text}\n```"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Registers the directives."""
    app.add_directive("options", Options)
    app.add_directive("kinds", Kinds)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
