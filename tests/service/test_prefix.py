"""The service behind nginx, under a path of its own; pages of other origins; probes that ask for the head alone."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from pydantic import ValidationError

from evoquality import Client
from service.configuration.settings import Settings
from tests.service.conftest import KEY, Listening, picture
from tests.service.test_cli import evoquality

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or ""
CONFIGURATION = """
daemon off; pid {folder}/pid; error_log stderr;
events {{ }}
http {{
  access_log off; client_max_body_size 0; client_body_buffer_size 1m; proxy_buffering off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/1;
  uwsgi_temp_path {folder}/2; scgi_temp_path {folder}/3;
  server {{
    listen 127.0.0.1:{port};
    location /iqa/ {{ proxy_pass {upstream}; proxy_set_header Host $host; }}
  }}
}}
"""
STRIPPED, PASSED_ON = "/", ""
needs_nginx = pytest.mark.skipif(not NGINX, reason="nginx is not installed: apt-get install nginx-light")


@contextmanager
def nginx(upstream: str, folder: Path) -> Iterator[str]:
    """Shows the upstream under /iqa/ on a free port; the upstream's final slash takes the prefix away."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    folder.mkdir()
    file = folder / "nginx.conf"
    file.write_text(CONFIGURATION.format(folder=folder, port=port, upstream=upstream))
    process = subprocess.Popen([NGINX, "-c", str(file), "-p", str(folder)], stderr=subprocess.PIPE, text=True)
    try:
        while True:
            assert process.poll() is None, process.stderr.read()
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.01)
        yield f"http://127.0.0.1:{port}/iqa"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(params=[STRIPPED, PASSED_ON], ids=["stripped", "passed on"])
def behind(request: pytest.FixtureRequest, make_listening, tmp_path: Path) -> Iterator[tuple[Listening, str]]:
    """A service, and its address behind nginx."""
    listening = make_listening(root_path="/iqa/", max_upload_bytes=20_000)
    with nginx(listening.url + request.param, tmp_path / "nginx") as url:
        yield listening, url


@needs_nginx
def test_the_page_and_everything_it_loads_and_calls_stay_under_the_prefix(behind: tuple[Listening, str]):
    _, url = behind
    page = httpx.get(f"{url}/")
    assert page.status_code == 200
    linked = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
    assert {"web/main.js", "docs"} <= set(linked)
    script = httpx.get(urljoin(f"{url}/", "web/api.js")).text
    called = re.findall(r'(?:send|post)\("([^"]+)"', script)
    assert {"v1/info", "v1/score/batch"} <= set(called)
    for path in linked:
        assert httpx.get(urljoin(f"{url}/", path)).status_code == 200, path
    for path in called:
        assert httpx.get(urljoin(f"{url}/", path)).status_code in {200, 405}, path


@needs_nginx
def test_the_documentation_finds_its_files_and_its_document(behind: tuple[Listening, str]):
    _, url = behind
    docs = httpx.get(f"{url}/docs")
    needed = re.findall(r"""(?:href|src)="([^"]+)"|url: '([^']+)'""", docs.text)
    paths = [one or other for one, other in needed]
    assert any(path.endswith("openapi.json") for path in paths) and len(paths) >= 4
    for path in paths:
        assert httpx.get(urljoin(f"{url}/docs", path)).status_code == 200, path
    assert httpx.get(f"{url}/openapi.json").json()["servers"] == [{"url": "/iqa"}]


@needs_nginx
def test_clients_and_limits_work_under_the_prefix(behind: tuple[Listening, str]):
    listening, url = behind
    large = picture(side=64, kind="BMP")
    with Client(url) as client, Client(listening.url) as straight:
        assert client.info() == straight.info()
        assert client.score(picture(200)).score == straight.score(picture(200)).score
        assert len(client.score_batch([large, large]).results) == 2  # larger than one picture may be
        assert len(list(client.score_stream([large, large]))) == 2
    assert httpx.post(f"{url}/v1/score", files={"image": large * 2}).json()["code"] == "body_too_large"
    for path in ("/v1/nothing", "/docs/nothing"):
        assert httpx.get(url + path).json()["code"] == "not_found"
    assert evoquality("info", url=url).exit_code == 0


def test_without_a_prefix_the_document_names_no_server(listening: Listening):
    assert "servers" not in httpx.get(f"{listening.url}/openapi.json").json()


@pytest.mark.parametrize("wrong", ["iqa", "https://example.com/iqa", "/a b", "/iqa?x", "//"])
def test_a_prefix_that_is_none_stops_the_start(wrong: str):
    if wrong == "//":
        assert Settings(root_path=wrong).root_path == ""
        return
    with pytest.raises(ValidationError):
        Settings(root_path=wrong)


ORIGIN = {"Origin": "https://photos.example"}


@pytest.mark.parametrize("allowed", ["https://photos.example,https://other.example", "*"])
def test_pages_of_chosen_origins_may_call_the_public_routes(allowed: str, make_listening):
    listening = make_listening(origins=allowed)
    told = ORIGIN["Origin"] if allowed != "*" else "*"
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}
    for path in ("/v1/score", "/v1/score/batch", "/v1/rank", "/v1/info"):
        before = httpx.options(listening.url + path, headers=ORIGIN | asked)
        assert (before.status_code, before.headers["access-control-allow-origin"]) == (200, told)
    for answer in (
        httpx.post(f"{listening.url}/v1/score", files={"image": picture()}, headers=ORIGIN),
        httpx.post(f"{listening.url}/v1/score", files={"image": b"no image"}, headers=ORIGIN),
        httpx.post(f"{listening.url}/v1/score", files={"image": b"0" * 21 * 2**20}, headers=ORIGIN),
        httpx.get(f"{listening.url}/v1/nothing", headers=ORIGIN),
    ):
        assert answer.headers["access-control-allow-origin"] == told
        assert "Retry-After" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers
    if allowed != "*":
        stranger = httpx.get(f"{listening.url}/v1/info", headers={"Origin": "https://stranger.example"})
        assert "access-control-allow-origin" not in stranger.headers
    operators = httpx.get(f"{listening.operator_url}/v1/info", headers={"Authorization": f"Bearer {KEY}", **ORIGIN})
    assert "access-control-allow-origin" not in operators.headers


def test_pages_of_other_origins_may_call_nothing_by_default(listening: Listening):
    answer = httpx.get(f"{listening.url}/v1/info", headers=ORIGIN)
    assert not [name for name in answer.headers if name.startswith("access-control")]
    for wrong in ("photos.example", "https://a/b", "https://*.example"):
        with pytest.raises(ValidationError):
            Settings(origins=[wrong])


def test_probes_may_ask_for_the_head_alone(listening: Listening):
    for base in (listening.url, listening.operator_url):
        for path in ("/health/live", "/health/ready"):
            head, whole = httpx.head(base + path), httpx.get(base + path)
            assert (head.status_code, head.content) == (whole.status_code, b"") == (200, b"")
            assert head.headers["content-length"] == whole.headers["content-length"]
    assert httpx.head(f"{listening.url}/").status_code == 200
    listening.world.engine.is_dead = True
    assert httpx.head(f"{listening.url}/health/live").status_code == 200
    assert httpx.head(f"{listening.url}/health/ready").status_code == 503
