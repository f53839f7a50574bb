"""What is said when nothing is done."""


class Refusal(Exception):
    """Nothing was changed, and why. The text of the exception is the whole message."""


def refusal(what: str, expected: str, found: str, do: str) -> Refusal:
    """Which package, what was expected, what was found, what to do next: as patch-package does."""
    return Refusal(f"{what}\n  expected: {expected}\n  found:    {found}\n  do:       {do}")


class HalfDone(Exception):
    """A change failed half-way and could not be undone either; the next run finishes it."""
