"""What passes between browser and page: requests of the page's own, answers that reach nothing."""

from __future__ import annotations

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


class Gate:
    """Takes requests of the page's own alone, and tells the browser: reach nothing else.

    A browser names in `Origin` the site whose page asks. Another site's can send what it cannot
    read the answer of: uploads.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes a request on, without what a proxy may say, which there is none of."""
        if scope["type"] in ("http", "websocket"):
            asked = Headers(scope=scope)
            origin = asked.get("origin")
            if origin is not None and urlsplit(origin).netloc != asked.get("host"):
                refusal = PlainTextResponse("asked for by another site's page", status_code=403)
                await refusal(scope, receive, send)
                return
            kept = [(n, v) for n, v in scope["headers"] if not n.startswith(b"x-forwarded-")]
            scope = {**scope, "headers": kept}

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
