"""What a config takes from the environment: stored by the variable's name, never by its value."""

from __future__ import annotations

import os
from typing import Any

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

_ASKED: set[str] = set()  # environment variables that options were taken from


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
