"""A viser server that only pages of this machine can reach."""

from __future__ import annotations

import functools
import http
import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any
from urllib.parse import urlsplit

import viser
import websockets.asyncio.server
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

HOST = "127.0.0.1"
LOCAL = {HOST, "localhost"}


def start_server(port: int, title: str) -> viser.ViserServer:
    """Start a server on 127.0.0.1, on the given port or, if it is taken, on the next free one.

    Requests with another Host or from pages of another Origin are refused, so that a web page cannot control a run
    through the user's browser.
    """
    with _local_pages_only(), redirect_stdout(io.StringIO()):  # viser prints its address, also with verbose=False
        return viser.ViserServer(host=HOST, port=port, label=title, verbose=False)


def stop_server(server: viser.ViserServer) -> None:
    """Stop a server; browsers are disconnected."""
    with redirect_stdout(io.StringIO()):
        server.stop()


def is_local(host: str | None, origin: str | None) -> bool:
    """Whether a request is for this machine, and comes from its own page or from no page.

    Args:
        host: Its Host header; the port may be that of a tunnel.
        origin: Its Origin header.
    """
    try:
        asked = urlsplit(f"//{host}")
        if asked.hostname not in LOCAL:
            return False
        page = urlsplit(origin) if origin is not None else None
        return page is None or (page.hostname in LOCAL and page.port == asked.port)
    except ValueError:
        return False


@contextmanager
def _local_pages_only() -> Iterator[None]:
    """Check the requests of servers that start in the context: viser has no setting for this."""
    serve = websockets.asyncio.server.serve

    def guarded(*given: Any, process_request: Any, **settings: Any) -> Any:
        @functools.wraps(process_request)
        def check(connection: ServerConnection, request: Request) -> Response | None:
            hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
            if len(hosts) == 1 and len(origins) < 2 and is_local(hosts[0], origins[0] if origins else None):
                return process_request(connection, request)
            return connection.respond(http.HTTPStatus.FORBIDDEN, "open this page as http://127.0.0.1 on this machine\n")

        return serve(*given, process_request=check, **settings)

    websockets.asyncio.server.serve = guarded  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        websockets.asyncio.server.serve = serve  # pyright: ignore[reportAttributeAccessIssue]
