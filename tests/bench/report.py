"""The tables of docs/benchmark*.md; what stands between the tables is written by hand."""

import math
import re
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from bench.cells import SCHEDULES

DOCS = Path(__file__).resolve().parents[2] / "docs"
Cells = Dict[str, Dict[str, Any]]


def table(head: List[str], rows: List[List[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def _cells(cells: Cells, kind: str) -> Dict[str, Dict[str, Any]]:
    """Those of a kind, by what follows it."""
    return {key[len(kind) + 1 :]: found for key, found in cells.items() if key.startswith(f"{kind}|")}


def _harm(found: Optional[Dict[str, Any]]) -> str:
    if found is None:
        return "–"
    if "error" in found:
        return f"does not serve any more: {found['error']}"
    lost = sum(found["lost"].values())
    figures = {"lost": lost, **{what: found[what] for what in ("doubled", "broken", "dead", "hung")}}
    return ", ".join(f"{number:,} {what}" for what, number in figures.items() if number) or "0"


def losses(cells: Cells) -> str:
    measured = [schedule for schedule in SCHEDULES if any(key.startswith(f"losses|{schedule}|") for key in cells)]
    subjects = dict.fromkeys(key.split("|")[2] for key in cells if key.startswith("losses|"))
    return table(
        ["", *(f"({schedule[0]}){schedule[1:]}" for schedule in measured)],
        [[subject, *(_harm(cells.get(f"losses|{one}|{subject}")) for one in measured)] for subject in subjects],
    )


def totals(cells: Cells) -> str:
    """Of the long runs: out of how many."""
    rows = [
        [subject, *(f"{found[what]:,}" for what in ("rotations", "lines", "requests")), _harm(found)]
        for subject, found in _cells(cells, "losses|a").items()
        if "error" not in found
    ]
    return table(["", "rotations", "lines", "requests", "what went wrong"], rows)


def _spread(found: Dict[str, float], form: str = ".1f") -> str:
    if found["median"] == math.inf:
        return "never"
    return f"{found['median']:{form}} ({found['low']:{form}}–{found['high']:{form}})".replace("inf", "never")


def _by_subject(cells: Cells, kind: str) -> str:
    found = dict(
        sorted(_cells(cells, kind).items(), key=lambda item: (item[0].split("|")[1:], int(item[0].split("|")[0])))
    )
    names = dict.fromkeys(name for figures in found.values() for name in figures)
    return table(
        ["", *(key.replace("|", ", ") for key in found)],
        [[name, *(_spread(one[name], ".2f") if name in one else "–" for one in found.values())] for name in names],
    )


def costs(cells: Cells) -> str:
    rows = [
        [name, key, _spread(found["rate"], ".0f"), _spread(found["cost"], ".0f"), _spread(found["ratio"], ".3f")]
        for key, figures in _cells(cells, "costs").items()
        for name, found in figures.items()
    ]
    head = ["", "beside", "requests/s", "µs of processor time per request", "as a share of the first one's"]
    return table(head, rows)


def reopening(cells: Cells) -> str:
    rows = [[name, _spread(found, ".0f")] for name, found in cells.get("reopening", {}).items()]
    return table(["", "µs of processor time per worker and rotation"], rows)


TABLES: Dict[str, Callable[[Cells], str]] = {
    "totals": totals,
    "losses": losses,
    "letting go": lambda cells: _by_subject(cells, "letting go"),
    "costs": costs,
    "reopening": reopening,
}


def _made(results: Dict[str, Any]) -> str:
    return "{date}; {machine}".format(**results["made"])


def text(results: Dict[str, Any]) -> str:
    kinds = {"totals", *(key.split("|")[0] for key in results["cells"])}
    tables = [f"{name}\n{make(results['cells'])}" for name, make in TABLES.items() if name in kinds]
    return "\n\n".join([_made(results), *tables])


def write(results: Dict[str, Any]) -> None:
    """Bring the tables up to date."""
    blocks = {"made": _made(results), **{name: make(results["cells"]) for name, make in TABLES.items()}}
    for document in (DOCS / "benchmarks.md", DOCS / "benchmark-results.md"):
        said = document.read_text()
        for name, new in blocks.items():
            block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
            said = block.sub(lambda match: f"{match[1]}{new}\n{match[2]}", said)  # noqa: B023  # Called at once
        document.write_text(said)
