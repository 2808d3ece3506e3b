"""What stands between a client and a service: a reverse or forward proxy that can be told to answer itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx


@dataclass
class Gateway:
    """Passes requests on to `upstream`. `instead` gives its own status, headers and body, or None to pass on."""

    upstream: str
    url: str = ""
    instead: Callable[[str], tuple[int, dict[str, str], bytes] | None] = lambda path: None
    change: Callable[[str, bytes], bytes] = lambda path, body: body
    asked: list[str] = field(default_factory=list)


@contextmanager
def gateway(upstream: str = "") -> Iterator[Gateway]:
    """Listens on a free port of this machine."""
    between = Gateway(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            path = urlsplit(self.path).path
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            between.asked.append(path)
            own = between.instead(path)
            if own is None:
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                there = httpx.request(
                    self.command, between.upstream + path, content=body, headers=headers, trust_env=False, timeout=60
                )
                own = there.status_code, dict(there.headers), between.change(path, there.content)
            self.send_response(own[0])
            for name, value in own[1].items():
                if name.lower() not in {"content-length", "transfer-encoding", "connection", "server", "date"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(own[2])))
            self.end_headers()
            self.wfile.write(own[2])

        do_GET = do_POST = do_PUT = do_DELETE = do_CONNECT = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        between.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield between
        finally:
            server.shutdown()
            thread.join()


def away(status: int = 502) -> Callable[[str], tuple[int, dict[str, str], bytes]]:
    """What a gateway says whose service is away."""
    return lambda path: (status, {"Content-Type": "text/html"}, b"<html>\n<h1>Bad\x00 gateway</h1>")
