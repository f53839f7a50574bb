import time
from typing import Callable, TypeVar

from properties.expect import MISSES, Broken

T = TypeVar("T")

#: Seconds after which something that takes milliseconds is taken never to happen, on a busy machine too.
PATIENCE = 20.0


def until(look: Callable[[], T], missing: Callable[[], str], patience: float = PATIENCE, harm: str = MISSES) -> T:
    """The first true value that look() returns; fails with what missing() says when patience ends."""
    waited = 0.0
    while True:
        start = time.monotonic()
        found = look()
        if found:
            return found
        if waited > patience:
            raise Broken(missing(), harm)
        time.sleep(min(0.001 + waited / 10, 0.02))
        # Where a machine stands still for a while, what we wait for does too.
        waited += min(time.monotonic() - start, 0.2)


class Patience:
    """
    How long to wait for something that an environment may never do.

    In full, until that has been in vain once. The environment has failed then, and what remains to be said is
    in how many ways: from then on what does not come soon, for something that takes milliseconds, never will.
    """

    SHORT = 0.5

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.seconds:g} s"

    def until(self, look: Callable[[], T], missing: Callable[[], str], harm: str = MISSES) -> T:
        try:
            return until(look, missing, self.seconds, harm)
        except Broken:
            self.lose()
            raise

    def lose(self) -> None:
        self.seconds = min(self.seconds, self.SHORT)
