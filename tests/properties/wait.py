import time
from typing import Callable, TypeVar

T = TypeVar("T")

#: Seconds after which something that takes milliseconds is taken never to happen, on a busy machine too.
PATIENCE = 20.0


def until(look: Callable[[], T], missing: Callable[[], str], patience: float = PATIENCE) -> T:
    """The first true value that look() returns; fails with what missing() says when patience ends."""
    start = time.monotonic()
    while True:
        found = look()
        if found:
            return found
        waited = time.monotonic() - start
        if waited > patience:
            raise AssertionError(missing())
        time.sleep(min(0.001 + waited / 10, 0.02))
