import time
from typing import Callable, TypeVar

T = TypeVar("T")

#: Seconds after which something that takes milliseconds is taken never to happen, on a busy machine too.
PATIENCE = 20.0


def until(look: Callable[[], T], missing: Callable[[], str], patience: float = PATIENCE) -> T:
    """The first true value that look() returns; fails with what missing() says when patience ends."""
    waited = 0.0
    while True:
        start = time.monotonic()
        found = look()
        if found:
            return found
        if waited > patience:
            raise AssertionError(missing())
        time.sleep(min(0.001 + waited / 10, 0.02))
        # Where a machine stands still for a while, what we wait for does too.
        waited += min(time.monotonic() - start, 0.2)
