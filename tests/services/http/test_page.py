"""The files of the web page as they are sent: without a token, under a strict policy, and never from elsewhere."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath

import httpx
import pytest
from fastapi import FastAPI

from services.config import LimitsConfig
from services.http.guard import Guard
from services.http.routes import page
from services.http.tokens import Tokens

FILES = page.page_files()
SCRIPTS = {name: file.content.decode() for name, file in FILES.items() if name.endswith(".js")}
LONGEST = 300


@pytest.fixture
async def http(tmp_path: Path):
    routes = FastAPI()
    page.add(routes)
    routes.add_middleware(Guard, tokens=Tokens(tmp_path), limits=LimitsConfig())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(routes), base_url="http://viter") as client:
        yield client


async def test_the_page_needs_no_token_and_says_what_may_run_in_it(http: httpx.AsyncClient):
    answer = await http.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy)
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert (await http.get("/v1/models")).status_code == 401


async def test_a_file_that_is_known_is_not_sent_again(http: httpx.AsyncClient):
    first = await http.get("/static/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = await http.get("/static/app.js", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert (await http.get("/static/app.js", headers={"If-None-Match": '"other"'})).status_code == 200


@pytest.mark.parametrize(
    "path", ["..%2fguard.py", "%2e%2e%2froutes%2fpage.py", "%2fetc%2fpasswd", "views%2f..%2fapp.js", "..%5cweb.py", ""]
)
async def test_only_the_pages_own_files_are_sent(http: httpx.AsyncClient, path: str):
    assert (await http.get(f"/static/{path}")).status_code == 404


async def test_every_file_that_is_named_is_there(http: httpx.AsyncClient):
    html = (await http.get("/")).text
    named = re.findall(r'(?:src|href)="(static/[^"]+)"', html)
    assert len(named) >= 4
    for name in named:
        answer = await http.head(f"/{name}")
        assert (answer.status_code, answer.content) == (200, b"")
    imports = {
        (name, normpath(join(dirname(name), path)))
        for name, script in SCRIPTS.items()
        for path in re.findall(r'(?:from|import\()\s*"([^"]+)"', script)
    }
    assert len(imports) > 40
    assert {path for _, path in imports} <= FILES.keys()


def test_no_script_parses_markup_or_reaches_elsewhere():
    html = FILES["index.html"].content.decode()
    assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son[a-z]+=|https?:", html)
    for name, script in SCRIPTS.items():
        found = re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function", script
        )
        assert not found, name
        elsewhere = set(re.findall(r"https?://[^\"'\s]+", script)) - {"http://www.w3.org/2000/svg"}
        assert not elsewhere, name
    assert "url(" not in FILES["page.css"].content.decode()


def test_scripts_are_short_and_say_what_they_are():
    for name, script in SCRIPTS.items():
        assert script.startswith("// "), name
        assert len(script.splitlines()) < LONGEST, name
