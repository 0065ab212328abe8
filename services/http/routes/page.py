"""The web page: its files as they lie in `services/http/page`, read once. They hold no secret, so they need no token."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import Response

FOLDER = Path(__file__).parents[1] / "page"
START = "index.html"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' blob:",  # pictures are fetched with the token, then shown
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-cache",  # kept, and asked about: an upgrade of the service is an upgrade of the page
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page as it is sent."""

    content: bytes
    kind: str
    tag: str


def page_files() -> dict[str, PageFile]:
    """Every file of the page by its path within the folder, e.g. `views/run.js`."""
    paths = (path for path in sorted(FOLDER.rglob("*")) if path.suffix in KINDS)
    return {path.relative_to(FOLDER).as_posix(): _read(path) for path in paths}


def add(routes: FastAPI) -> None:
    files = page_files()

    @routes.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def start(request: Request) -> Response:
        return _sent(files[START], request)

    @routes.api_route("/static/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def static(path: str, request: Request) -> Response:
        if path not in files:  # a name in a table, never a path on the disk
            raise HTTPException(404, "the page has no such file")
        return _sent(files[path], request)


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    return PageFile(content, KINDS[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _sent(file: PageFile, request: Request) -> Response:
    headers = {**HEADERS, "ETag": file.tag}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.tag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.kind)
