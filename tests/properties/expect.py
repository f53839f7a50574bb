"""
What a property expects, and what it says if it is not so: a sentence with figures about the person's
server, never an expression. Properties state nothing by assert: ruff looks.
"""

from typing import Callable, Union

#: What becomes of a server where a promise is broken, for the verdict: "a rotation ... kills workers and ..."
KILLS = "kills workers"
MISSES = "does not reopen log files"
LOSES = "loses or doubles log lines"
BREAKS = "breaks requests"
COMPLAINS = "leaves tracebacks"
CHANGES = "changes what is not its business"

#: What each of them means for the person's server
MEANINGS = {
    KILLS: "On your server: a rotation can end a worker, and with it the requests that the worker is answering.",
    MISSES: "On your server: lines still go to the rotated file, and are lost when it is compressed or removed.",
    LOSES: "On your server: log lines are missing, or are there twice, after a rotation.",
    BREAKS: "On your server: a client gets no answer, or half of one, because of a rotation.",
    COMPLAINS: "On your server: rotations write errors to the log or to stderr.",
    CHANGES: "On your server: a rotation changes something that has nothing to do with it.",
}


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
