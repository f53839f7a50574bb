"""
What a property expects, and what it says if it is not so: a sentence with figures about the person's
server, never an expression. Properties state nothing by assert: tests/test_sentences.py looks.
"""

from typing import Callable, Union

#: What becomes of a server where a promise is broken, for the verdict: "SIGUSR1 kills workers and ..."
KILLS = "kills workers"
MISSES = "misses rotations"
LOSES = "loses or doubles log lines"
BREAKS = "breaks requests"
COMPLAINS = "leaves tracebacks"
CHANGES = "changes what is not its business"


class Broken(AssertionError):
    """A promise that this server does not keep."""

    def __init__(self, sentence: str, harm: str = CHANGES) -> None:
        super().__init__(sentence)
        self.harm = harm


class Unanswered(Broken, OSError):
    """A request that was not answered in full."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, BREAKS)


def expect(kept: object, otherwise: Union[str, Callable[[], str]], harm: str = CHANGES) -> None:
    """Raises Broken with what `otherwise` says unless the promise is kept."""
    if not kept:
        raise Broken(otherwise if isinstance(otherwise, str) else otherwise(), harm)


def count(number: int, thing: str) -> str:
    """A number of things, in words: "1 worker", "1,858 lines"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
