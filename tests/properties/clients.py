"""Clients that know which of their requests were answered in full."""

import itertools
import random
import socket
import threading
from pathlib import Path
from typing import Callable, List, Optional, Sequence

from properties import wait
from properties.expect import BREAKS, Unanswered, expect

_numbers = itertools.count(1)

#: How long to wait for an answer, which takes milliseconds.
patience = wait.Patience(10)


def new_request() -> str:
    """The name of a request, found nowhere else in any log."""
    return f"id-{next(_numbers)}"


class Client:
    """One connection to a server's Unix socket, kept alive from request to request."""

    def __init__(self, path: Path, timeout: Optional[float] = None) -> None:
        """timeout is for a test whose requests may take as long; others learn from those that were not answered."""
        self.timeout = timeout
        self.closing = False  # Whether the server has said that it closes the connection
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout or patience.seconds)
        try:
            self.socket.connect(str(path))
        except OSError as error:
            raise Unanswered(f"no connection could be made: {error}") from error

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def send(self, kind: str, request: str, query: str = "", body: Optional[int] = None) -> None:
        """Send a request's head; a body is announced only, for the test to send when it likes."""
        method, announced = ("GET", "") if body is None else ("POST", f"Content-Length: {body}\r\n")
        self.send_raw(f"{method} /{kind}/{request}?{query} HTTP/1.1\r\nHost: test\r\n{announced}\r\n".encode())

    def send_raw(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Unanswered("the connection was closed before the request was sent") from error

    def answer(self) -> bytes:
        """The body of a whole answer; raises Unanswered if the connection ends before it does, or nothing comes."""
        received = self._receive_until(b"", lambda data: b"\r\n\r\n" in data)
        head, body = received.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 200"):
            raise Unanswered(f"a request was answered with {head.split(b' ', 1)[-1].splitlines()[0].decode()!r}")
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        self.closing = headers.get(b"connection") == b"close"
        if b"content-length" in headers:
            length = int(headers[b"content-length"])
            return self._receive_until(body, lambda data: len(data) >= length)
        return self._receive_until(body, lambda data: data.endswith(b"0\r\n\r\n"))

    def get(self, kind: str, request: str, query: str = "") -> bytes:
        self.send(kind, request, query)
        return self.answer()

    def _receive_until(self, data: bytes, complete: Callable[[bytes], bool]) -> bytes:
        while not complete(data):
            try:
                received = self.socket.recv(65536)
            except socket.timeout as error:
                if self.timeout is None:
                    patience.lose()
                raise Unanswered(f"a request was not answered within {self.socket.gettimeout():g} s") from error
            except OSError:
                received = b""  # Reset by a worker that was killed
            if not received:
                raise Unanswered("the connection was closed before a request was answered")
            data += received
        return data


class Load:
    """Clients that send one request after another, each on its own connection, until told to stop."""

    def __init__(self, path: Path, clients: int, kinds: Sequence[str] = ("async",), requests_each: int = 10**9) -> None:
        self.path = path
        self.kinds = kinds
        self.requests_each = requests_each  # for each connection, which is then made anew
        self.requests: List[str] = []  # Those that were answered
        self.broken: List[str] = []
        self.stopping = False
        self.threads = [threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stopping = True
        for thread in self.threads:
            thread.join()

    def wait_for_answers(self, number: int) -> None:
        """Wait for so many answers more than there are now."""
        wanted = len(self.requests) + number

        def missing() -> str:
            broken = f", {len(self.broken):,} were broken" if self.broken else ""
            return f"only {len(self.requests):,} of {wanted:,} requests were answered within {patience}{broken}"

        patience.until(lambda: len(self.requests) >= wanted, missing, BREAKS)

    def expect_unbroken(self) -> None:
        expect(
            not self.broken,
            lambda: f"{len(self.broken):,} of {len(self.requests) + len(self.broken):,} requests broken; "
            f"the first: {self.broken[0]}",
            BREAKS,
        )

    def _run(self, seed: int) -> None:
        choose = random.Random(seed)
        while not self.stopping:
            request = "no request"
            try:
                with Client(self.path) as client:
                    for _ in range(self.requests_each):
                        request = new_request()
                        client.get(choose.choice(self.kinds), request)
                        self.requests.append(request)
                        if self.stopping or client.closing:
                            break
            except Unanswered as error:
                self.broken.append(f"{request}: {error}")
