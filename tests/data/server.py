"""An HTTP server of this machine that breaks off, lies or stalls when told to."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from minires.data.download import File

CONTENT = np.random.default_rng(0).bytes(200_000)
OTHER = np.random.default_rng(1).bytes(200_000)


class Handler(BaseHTTPRequestHandler):
    """Serves what the server's `folders` hold, as its other attributes say."""

    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers["Range"]
        server.requests.append((self.path, wanted))
        folder = self.path.rsplit("/", 1)[0]
        if server.refuse:
            return self.send_error(server.refuse.pop(0))
        if folder not in server.folders:
            return self.send_error(404)
        content = server.folders[folder]
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            said = start + server.lie
            self.send_header("Content-Range", f"bytes {said}-{len(content) - 1}/{len(content)}")
        if server.tells_length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = server.breaks.pop(0) if server.breaks else len(content)
        for at in range(start, stop, 7_000):
            self.wfile.write(content[at : min(at + 7_000, stop)])
            server.seen.append(server.watch())
        if stop < len(content) and server.stall.is_set():
            server.stalled.set()
            server.go_on.wait(20)
        if stop < len(content) and server.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A server of this machine. What it does is set by its attributes; `requests` are (path, Range) of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folders = {"/good": CONTENT, "/bad": OTHER, "/short": CONTENT[:-5], "/long": CONTENT + b"more"}
        self.refuse: list[int] = []  # answers to the next requests
        self.breaks: list[int] = []  # offsets at which the next connections end
        self.ranges = self.tells_length = True
        self.reset = False  # connections end with an error, and not as if they were done
        self.lie = 0  # added to the start of a range in the answer
        self.requests: list[tuple[str, str | None]] = []
        self.watch: Callable[[], object] = lambda: None
        self.seen: list[object] = []  # what `watch` saw at every piece
        self.stall, self.stalled, self.go_on = threading.Event(), threading.Event(), threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that leave are part of the tests

    def url(self, folder: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{folder}/"

    def file(self, *folders: str) -> File:
        digest = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
        return File("data.bin", len(CONTENT), digest, tuple(map(self.url, folders or ("good",))))
