"""What became of a server in an environment while its logs were rotated, before and after, side by side."""

import json
import re
from typing import Dict, List, NamedTuple, Optional, Sequence

from usr1.apply import proof
from usr1.apply.environment import Environment
from usr1.apply.screen import WRAPPED, lines_of, painted, progress, say
from usr1.apply.user import User

WIDTH = 12  # Of a column


class Figures(NamedTuple):
    """As tests/properties/figures.py prints them."""

    worker_class: str
    lost: Dict[str, int]  # By log
    doubled: int
    lines: int
    broken: int
    requests: int
    dead: int
    hung: int
    rotations: int
    slowest: Optional[float]  # Seconds; none if some process kept a rotated file open

    @property
    def wrong(self) -> List[str]:
        """What rotations do to the server, in words."""
        losing = [log for log, number in self.lost.items() if number]
        done = {
            f"lose lines of {listed(losing)}": losing,
            "write lines twice": self.doubled,
            "break requests": self.broken,
            "kill workers": self.dead,
            "hang workers": self.hung,
        }
        return [what for what, number in done.items() if number]

    @property
    def fixed_by(self) -> List[str]:
        """The distributions any one of whose patches is enough for this worker class."""
        package = self.worker_class.partition(".")[0].replace("_", "-")
        return [package, "gunicorn"] if package != "gunicorn" else [package]


Columns = Dict[str, Figures]  # By when they were measured


def listed(things: List[str], last: str = "and") -> str:
    return f" {last} ".join(filter(None, [", ".join(things[:-1]), *things[-1:]]))


def measure(environment: Environment, when: str, user: Optional[User] = None) -> Columns:
    """Serve it for some seconds, and rotate; nothing if that cannot be done."""
    line, step, steps = "", 0, 0

    def waiting() -> None:
        progress(f"load, {when}", step, steps)

    with proof.started(user, "properties.figures", str(environment.path)) as process:
        for line in lines_of(process, waiting):
            at = re.match(r"step (\d+) of (\d+)", line)
            step, steps = (int(at[1]) - 1, int(at[2])) if at else (step, steps)
            waiting()
        failed = process.wait() != 0
    if failed:
        say(f"no figures {when}: {line}")
    return {} if failed else {when: Figures(**json.loads(line))}


def show(columns: Columns, kept: bool, patched: Sequence[str]) -> None:
    """Print a table, and what follows from it, from whether all promises are kept, and from what is patched."""
    if columns:
        say("\n".join([*table(columns), WRAPPED.fill(conclusion(columns, kept, patched))]))


def conclusion(columns: Columns, kept: bool, patched: Sequence[str]) -> str:
    *earlier, last = columns.values()
    if last.wrong and set(last.fixed_by) & set(patched):
        again = "Run this again: the machine may have been too busy."
        return f"Although patched, rotations {listed(last.wrong)} here. {again}"
    if last.wrong:
        return f"Here rotations {listed(last.wrong)}. Patching {listed(last.fixed_by, 'or')} fixes this."
    if not kept:
        return "Nothing went wrong in these rotations, but others do harm: see the broken promises above."
    before = [f"Before the patch, rotations could {listed(one.wrong)}. " for one in earlier if one.wrong]
    return f"{''.join(before)}{'After it, nothing' if before else 'Nothing'} went wrong in these rotations."


def table(columns: Columns) -> List[str]:
    all_figures = list(columns.values())
    whens = [""] if len(columns) == 1 else [f" {when}" for when in columns]
    lines = ", ".join(f"{one.lines // len(one.lost):,}{when}" for one, when in zip(all_figures, whens))
    asked = ", ".join(f"{one.requests:,}{when}" for one, when in zip(all_figures, whens))
    number = " / ".join(dict.fromkeys(str(one.rotations) for one in all_figures))
    lost = {log: [one.lost[log] for one in all_figures] for log in all_figures[0].lost}
    rows = [
        *((f"lines lost of {log}", cells, f"   of {lines}") for log, cells in lost.items()),
        ("lines written twice", [one.doubled for one in all_figures], ""),
        ("requests broken", [one.broken for one in all_figures], f"   of {asked}"),
        ("workers killed or hung", [one.dead + one.hung for one in all_figures], ""),
    ]
    slowest = ["> 1 s" if one.slowest is None else f"{one.slowest:.2f} s" for one in all_figures]
    return [
        "",
        f"{f'In {number} rotations, under load:':32}{''.join(f'{when:>{WIDTH}}' for when in columns)}",
        *(f"{what:32}{''.join(map(_cell, cells))}{total}" for what, cells, total in rows),
        f"{'time to close all rotated files':32}{''.join(f'{cell:>{WIDTH}}' for cell in slowest)}",
        "",
    ]


def _cell(figure: int) -> str:
    return painted(f"{figure:>{WIDTH},}", "red" if figure else "green")
