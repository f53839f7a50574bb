"""How the change of the newest patch is carried over to another file."""

import pytest
from usr1.patches import PatchError
from usr1.upkeep.backports import carried_over


def lines(letters: str) -> str:
    return "".join(f"{letter}\n" for letter in letters)


@pytest.mark.parametrize(
    "pristine, patched, other, result",
    [
        ("abc", "abXc", "abc", "abXc"),
        ("abc", "abXc", "ab", "abX"),  # After the line before it
        ("abc", "abXc", "c", "Xc"),  # Before the line after it
        ("abc", "abXc", "abZc", "abXZc"),
        ("abc", "Xabc", "bc", "Xbc"),
        ("abc", "abcX", "ab", "abX"),
        ("abc", "aXc", "bZ", "XZ"),  # What goes needs nothing beside it
        ("abcd", "ad", "bcd", "d"),
        ("abc", "aXbYc", "ZaZbZcZ", "ZaXZbYZcZ"),
    ],
)
def test_change_has_its_place(pristine: str, patched: str, other: str, result: str) -> None:
    assert carried_over(*map(lines, (pristine, patched, other))) == lines(result)


@pytest.mark.parametrize(
    "pristine, patched, other, named",
    [
        ("abc", "abXc", "a", "bc"),  # Nothing is left of the place
        ("abc", "aXc", "ac", "b"),  # What goes has gone
        ("abcd", "aXd", "abd", "bc"),  # In part
        ("abcd", "aXd", "abZcd", "bc"),  # Or is no longer together
    ],
)
def test_change_without_a_place(pristine: str, patched: str, other: str, named: str) -> None:
    with pytest.raises(PatchError, match=f"what the patch changes:\n{lines(named)}$"):
        carried_over(*map(lines, (pristine, patched, other)))
