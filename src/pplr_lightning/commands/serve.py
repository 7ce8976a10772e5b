"""`serve`: search a gallery on a page in the browser of this machine."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from pplr_lightning.functional.warm_up import compile_loops
from pplr_lightning.gallery import SearchEngine
from pplr_lightning.serving.address import is_loopback, listen

GRACE = 3  # seconds for requests that are not answered when the server is to end


def run(args: list[str]) -> None:
    """Serves the page until it is stopped."""
    options = _parse(args)
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
                f"serve needs a package that is missing ({error}): pip install "
                "'pplr-lightning[serve]'"
            ) from error
        engine = SearchEngine.load(options.index, options.ckpt_path)
        compile_loops()  # else the first re-ranking would take seconds
        public = not is_loopback(options.host)
        app = build_app(engine, hosts=["*"] if public else None)
        host, port = taken.getsockname()[:2]
        if public:
            print(
                f"warning: every machine that reaches {host} can search and see the gallery's "
                "images; there is no password and no encryption",
                file=sys.stderr,
            )
        shown = f"[{host}]" if ":" in host else host
        print(
            f"{len(engine.gallery):,} images: open http://{shown}:{port}/ in a browser"
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


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m pplr_lightning serve", description=__doc__)
    parser.add_argument("--index", type=Path, required=True, help="gallery, written by index")
    parser.add_argument(
        "--ckpt_path", required=True, help="the checkpoint that embedded the gallery"
    )
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
    return parser.parse_args(args)
