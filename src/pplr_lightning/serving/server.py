"""A page served at an address until it is stopped."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pplr_lightning.serving.address import is_loopback, listen

GRACE = 3  # seconds for requests that are not answered when the server is to end


def add_address(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `serve_page` to a command's."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address of this machine (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=7860, help="0 takes any that is free (default: %(default)s)"
    )
    parser.add_argument(
        "--allow_public",
        action="store_true",
        help="take a host that other machines reach; there is no password",
    )


def serve_page(
    options: argparse.Namespace, make: Callable[[], tuple[Any, str]], *, name: str, can: str
) -> None:
    """Serves a page of Gradio's until SIGTERM or Ctrl-C.

    Args:
        options: Of `add_address`.
        make: Makes the page once the address is taken; and says what is on it.
        name: Of the command.
        can: What every machine that reaches a public address can do.

    Raises:
        ValueError: The address cannot be had.
        ImportError: Gradio or what it needs is missing.
    """
    with (
        listen(options.host, options.port, allow_public=options.allow_public) as taken,
        tempfile.TemporaryDirectory(prefix="pplr-serve-") as uploads,
    ):
        # Gradio reads these as it is imported; what is dropped on the page is removed at the end.
        os.environ["GRADIO_TEMP_DIR"] = uploads
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        try:
            import uvicorn

            from pplr_lightning.serving.app import build_app
        except ImportError as error:
            raise ImportError(
                f"{name} needs a package that is missing ({error}): pip install "
                "'pplr-lightning[serve]'"
            ) from error
        page, what = make()
        public = not is_loopback(options.host)
        app = build_app(page, hosts=["*"] if public else None)
        host, port = taken.getsockname()[:2]
        if public:
            print(
                f"warning: every machine that reaches {host} can {can}; there is no password and "
                "no encryption",
                file=sys.stderr,
            )
        shown = f"[{host}]" if ":" in host else host
        print(
            f"{what}: open http://{shown}:{port}/ in a browser"
            f"{'' if public else ' of this machine'}; Ctrl-C ends it",
            flush=True,
        )
        # As Ctrl-C, so that the uploads are removed.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            config = uvicorn.Config(
                app, log_level="warning", proxy_headers=False, timeout_graceful_shutdown=GRACE
            )
            uvicorn.Server(config).run(sockets=[taken])
