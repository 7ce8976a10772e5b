"""What passes between browser and page: requests of the page's own, answers that reach nothing."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

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


# Of Gradio's own, what the page does not ask for.
CLOSED = re.compile(r"(/gradio_api)?/(openapi\.json|dev/|vibe-|monitoring|mcp|proxy=|deep_link)")
MOST_ASKED = 2**20  # bytes of a request but for uploads


class _TooMuchError(Exception):
    """A request goes on beyond its bounds."""


class Gate:
    """Takes requests of the page's own alone, and tells the browser: reach nothing else.

    A browser names in `Origin` the site whose page asks. Another site's can send what it cannot
    read the answer of: uploads. A request that never ends is not read to its end, which would fill
    the memory.

    Args:
        app: What answers.
        most: Bytes of a request that uploads.
    """

    def __init__(self, app: Any, most: int) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes a request on, without what a proxy may say, which there is none of."""
        path, read, began = scope.get("path", ""), 0, False
        most = self.most if path.rstrip("/").endswith("/upload") else MOST_ASKED
        if scope["type"] in ("http", "websocket"):
            asked = Headers(scope=scope)
            origin = asked.get("origin")
            if origin is not None and urlsplit(origin).netloc != asked.get("host"):
                refusal = PlainTextResponse("asked for by another site's page", status_code=403)
                await refusal(scope, receive, send)
                return
            if CLOSED.match(path):
                await PlainTextResponse("not found", status_code=404)(scope, receive, send)
                return
            kept = [(n, v) for n, v in scope["headers"] if not n.startswith(b"x-forwarded-")]
            scope = {**scope, "headers": kept}

        async def take() -> Any:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
                raise _TooMuchError
            return message

        async def answer(message: Any) -> None:
            nonlocal began
            if read > most and not began:  # whatever is said of a body that is not all there
                return
            began = True
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["Referrer-Policy"] = "no-referrer"
                headers["X-Content-Type-Options"] = "nosniff"
                if "/file=" in path:  # uploads
                    headers["Cache-Control"] = "no-store"
            await send(message)

        with suppress(_TooMuchError):
            await self.app(scope, take, answer)
        if read > most and not began:
            headers = {"Connection": "close"}
            refusal = PlainTextResponse("too large", status_code=413, headers=headers)
            await refusal(scope, receive, send)
