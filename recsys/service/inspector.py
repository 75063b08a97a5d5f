"""The inspector: a page of plain files, which asks the other endpoints."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse

FOLDER = Path(__file__).parent / "page"
_START = "index.html"
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: What is shown comes from logs: a browser that was tricked into it would still run no script of
#: theirs and ask no other host. Files are asked for again after another version was installed.
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_inspector(app: FastAPI, shown: bool) -> None:
    """Answer ``/`` with the page, and ``/page/…`` with the files that it loads.

    Args:
        app: of the service.
        shown: whether there is a page; else a sentence says how to get one.
    """
    files = {path.name: path for path in FOLDER.iterdir() if path.suffix in _TYPES}

    async def page(request: Request) -> Response:
        if not shown:
            sentence = "there is no page here: start the service with inspector=true."
            return JSONResponse({"error": sentence}, 404)
        path = files.get(request.path_params.get("name", _START))
        if path is None:
            return JSONResponse({"error": "the page has no such file."}, 404)
        return FileResponse(path, headers=_HEADERS, media_type=_TYPES[path.suffix])

    app.add_route("/", page)
    app.add_route("/page/{name}", page)
