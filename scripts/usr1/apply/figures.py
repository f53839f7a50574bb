"""What became of a server in an environment while its logs were rotated, before and after, side by side."""

import json
from typing import Dict, List, NamedTuple, Optional, Tuple

from usr1.apply import proof
from usr1.apply.environment import Environment
from usr1.apply.screen import heard, painted, say, tell
from usr1.apply.user import User

WIDTH = 12  # Of a column


class Figures(NamedTuple):
    """As tests/properties/figures.py prints them."""

    lost: Dict[str, int]  # By log
    doubled: int
    lines: int
    broken: int
    requests: int
    dead: int
    hung: int
    rotations: int
    slowest: Optional[float]  # Seconds; none if some process never let go

    @property
    def clean(self) -> bool:
        return not (any(self.lost.values()) or self.doubled or self.broken or self.dead or self.hung)


def measure(environment: Environment, when: str, user: Optional[User] = None) -> Optional[Figures]:
    """Serve it for some seconds, and rotate; none if that cannot be done."""
    line = "starting"

    def waiting() -> None:
        tell(f"  ... figures, {when}: {line}")

    with proof.started(user, "properties.figures", str(environment.path)) as process:
        for line in heard(process, waiting):
            if not line.startswith("{"):
                waiting()
        failed = process.wait() != 0
    if failed:
        say(f"no figures {when}: {line}")
    return None if failed else Figures(**json.loads(line))


def show(columns: Dict[str, Optional[Figures]]) -> None:
    """Print a table of what could be measured."""
    measured = {when: figures for when, figures in columns.items() if figures}
    if measured:
        say("\n".join(_table(measured)))
    if measured.get("as found") and measured["as found"].clean:
        say("As found it is clean: in these rotations nothing went wrong.")


def _table(measured: Dict[str, Figures]) -> List[str]:
    columns = list(measured.values())
    rows: List[Tuple[str, List[str], List[str]]] = [
        ("log lines lost", [f"{sum(one.lost.values()):,}" for one in columns], [f"{one.lines:,}" for one in columns]),
        ("log lines doubled", [f"{one.doubled:,}" for one in columns], []),
        ("requests broken", [f"{one.broken:,}" for one in columns], [f"{one.requests:,}" for one in columns]),
        ("workers killed or hung", [f"{one.dead + one.hung:,}" for one in columns], []),
    ]
    slowest = ["never" if one.slowest is None else f"{one.slowest:.2f} s" for one in columns]
    number = " / ".join(f"{one.rotations}" for one in columns)
    return [
        "",
        f"{f'In {number} rotations:':26}{''.join(f'{when:>{WIDTH}}' for when in measured)}",
        *(
            f"{what:26}{''.join(map(_cell, cells))}{'   of ' + ' / '.join(totals) if totals else ''}"
            for what, cells, totals in rows
        ),
        f"{'slowest to let go of a log':26}{''.join(f'{cell:>{WIDTH}}' for cell in slowest)}",
        "",
    ]


def _cell(figure: str) -> str:
    return painted(f"{figure:>{WIDTH}}", "green" if figure == "0" else "red")
