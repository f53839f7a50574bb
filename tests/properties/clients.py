"""Clients that know which of their requests were answered in full."""

import itertools
import random
import socket
import threading
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple

from properties import wait

_numbers = itertools.count(1)


def new_request() -> str:
    """The name of a request, found nowhere else in any log."""
    return f"id-{next(_numbers)}"


def _number(request: str) -> int:
    return int(request[len("id-") :])


class Client:
    """One connection to a server's Unix socket, kept alive from request to request."""

    def __init__(self, path: Path, timeout: float = wait.PATIENCE) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def send(self, kind: str, request: str, query: str = "", body: Optional[int] = None) -> None:
        """Send a request's head; a body is announced only, for the test to send when it likes."""
        method, announced = ("GET", "") if body is None else ("POST", f"Content-Length: {body}\r\n")
        head = f"{method} /{kind}/{request}?{query} HTTP/1.1\r\nHost: test\r\n{announced}\r\n"
        self.socket.sendall(head.encode())

    def answer(self) -> bytes:
        """The body of a whole answer; raises OSError if the connection ends before it does."""
        received = self._receive_until(b"", lambda data: b"\r\n\r\n" in data)
        head, body = received.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 200"):
            raise OSError(f"answered {head[:40]!r}")
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if b"content-length" in headers:
            length = int(headers[b"content-length"])
            return self._receive_until(body, lambda data: len(data) >= length)
        return self._receive_until(body, lambda data: data.endswith(b"0\r\n\r\n"))

    def get(self, kind: str, request: str, query: str = "") -> bytes:
        self.send(kind, request, query)
        return self.answer()

    def _receive_until(self, data: bytes, complete: Callable[[bytes], bool]) -> bytes:
        while not complete(data):
            received = self.socket.recv(65536)
            if not received:
                raise OSError("the connection was closed before the answer was whole")
            data += received
        return data


class Load:
    """Clients that send one request after another, each on its own connection, until told to stop."""

    def __init__(self, path: Path, clients: int, kinds: Sequence[str] = ("async",), requests_each: int = 10**9) -> None:
        self.path = path
        self.kinds = kinds
        self.requests_each = requests_each  # for each connection, which is then made anew
        self.answered: List[Tuple[str, bytes]] = []
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

    @property
    def requests(self) -> List[str]:
        return [request for request, _ in self.answered]

    def answered_since(self, request: str) -> List[str]:
        """The answered requests that were sent after another one was named."""
        return [other for other in self.requests if _number(other) > _number(request)]

    def wait_for_answers(self, number: int) -> None:
        """Wait for so many answers more than there are now."""
        wanted = len(self.answered) + number
        wait.until(
            lambda: len(self.answered) >= wanted,
            lambda: f"{len(self.answered)} of {wanted} requests were answered; broken: {self.broken[:3]}",
        )

    def _run(self, seed: int) -> None:
        choose = random.Random(seed)
        while not self.stopping:
            request = "no request"
            try:
                with Client(self.path) as client:
                    for _ in range(self.requests_each):
                        request = new_request()
                        self.answered.append((request, client.get(choose.choice(self.kinds), request)))
                        if self.stopping:
                            return
            except OSError as error:
                self.broken.append(f"{request}: {error!r}")
