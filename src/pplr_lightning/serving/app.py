"""The page as a web application that reaches nothing outside and that nobody else reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware

from pplr_lightning.gallery import SearchEngine
from pplr_lightning.serving.search_page import build_page

STYLE = Path(__file__).parent / "templates" / "style.css"
LARGEST = "50mb"  # upload
LOCAL = ["localhost", "127.0.0.1", "[::1]", "::1"]
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]
# A browser obeys this whatever Gradio's own code may ask of it.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's templates are compiled
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)


class Headers:
    """Adds to every answer what it tells the browser: reach nothing else, keep no picture."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes a request on."""

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["Referrer-Policy"] = "no-referrer"
                headers["X-Content-Type-Options"] = "nosniff"
                if "/file=" in scope.get("path", ""):  # uploads
                    headers["Cache-Control"] = "no-store"
            await send(message)

        await self.app(scope, receive, answer)


def build_app(engine: SearchEngine, *, hosts: list[str] | None = None) -> FastAPI:
    """Builds the application.

    Args:
        engine: Searches.
        hosts: Names it may be called by in a request, so that no other site's page reaches it by a
            name that leads here; this machine's if None.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Headers)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts or LOCAL, www_redirect=False)
    # Names of fonts alone: none is fetched. The greys are darker than Gradio's, to be read.
    theme = gr.themes.Default(font=FONTS, font_mono=["ui-monospace", "monospace"]).set(
        body_text_color_subdued="*neutral_600", block_info_text_color="*neutral_600"
    )
    return gr.mount_gradio_app(
        app,
        build_page(engine),
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
    )
