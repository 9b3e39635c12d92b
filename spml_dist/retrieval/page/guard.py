"""Who may ask the page: those who call it by its own name, from its own pages."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""headers of every answer: nothing but the page's own files runs in it or is read by others"""


class Guard:
    """Refuses requests that other sites make a browser send, and adds POLICY to every answer.

    A browser says where a request comes from in Sec-Fetch-Site and Origin. A page that a link opens is
    welcome, as it shows nothing to the site that linked it. Together with a list of host names this also
    keeps out names that were made to point here.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(POLICY)
            await send(message)

        reason = _foreign(scope)
        app = JSONResponse({"error": f"refused: {reason}"}, 403) if reason else self.app
        await app(scope, receive, with_policy)


def _foreign(scope: Scope) -> str | None:
    """Why a request is another site's; None = it is not."""
    headers = Headers(scope=scope)
    opened = scope["method"] == "GET" and scope["path"] == "/"
    origin, host = headers.get("origin"), headers.get("host", "")
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not opened:
        return "another site sent it"
    if origin is not None and origin.partition("://")[2] != host:
        return "its origin is another site"
    if scope["method"] == "POST" and headers.get("x-requested-with") != "spml-dist":
        return "it does not come from the page"
    return None
