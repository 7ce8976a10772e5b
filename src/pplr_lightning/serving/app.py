"""The page as a web application that reaches nothing outside and that nobody else reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from pplr_lightning.serving.gate import Gate

STYLE = Path(__file__).parent / "templates" / "style.css"
LARGEST = 50_000_000  # bytes of an upload
LOCAL = ["localhost", "127.0.0.1", "[::1]", "::1"]
UNDOCUMENTED: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]


def build_app(page: gr.Blocks, *, hosts: list[str] | None = None) -> FastAPI:
    """Builds the application.

    Args:
        page: Of the application.
        hosts: Names it may be called by in a request, so that no other site's page reaches it by a
            name that leads here; this machine's if None.
    """
    app = FastAPI(**UNDOCUMENTED)
    app.add_middleware(Gate, most=LARGEST + 2**16)  # with what surrounds it
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts or LOCAL, www_redirect=False)
    # Names of fonts alone: none is fetched. The greys are darker than Gradio's, to be read.
    theme = gr.themes.Default(font=FONTS, font_mono=["ui-monospace", "monospace"]).set(
        body_text_color_subdued="*neutral_600", block_info_text_color="*neutral_600"
    )
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=theme,
        css_paths=STYLE,
        footer_links=[],
        run_history=False,  # it would keep the images in the browser
        allowed_paths=[],
        max_file_size=LARGEST,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        show_error=True,
        app_kwargs=dict(UNDOCUMENTED),
    )
