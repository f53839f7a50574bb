"""The promises that the properties test, by kind, and how many of them a server keeps."""

from typing import Any, Dict, List, Mapping

from properties.expect import count

#: What a promise is about, by its module, or by its function where that is about something else.
KINDS = {
    "test_boot": "starting",
    "test_preloaded": "starting",
    "test_unreachable_log": "starting",
    "test_hook_log": "starting",
    "test_serving": "serving",
    "test_system_calls": "serving",
    "test_exit": "stopping",
    "test_customised": "logging set-ups",
    "test_forked_process": "forked processes",
    "test_inheritance": "forked processes",
    "test_dispositions": "other signals",
    "test_worse": "no worse than unpatched",
}

Stats = Mapping[str, List[Any]]  # Reports by outcome, as pytest counts them


def outcomes(stats: Stats) -> Dict[str, str]:
    """
    What became of each promise, by the name of its function: passed, failed or skipped.

    It is kept if it is under every worker class that it was tested with: so there are as many, whatever those are.
    """
    found: Dict[str, str] = {}
    for outcome in ("skipped", "untested", "passed", "failed"):
        for report in stats.get(outcome, []):
            if hasattr(report, "sentence"):
                found[report.nodeid.partition("[")[0]] = "skipped" if outcome == "untested" else outcome
    return found


def kind(name: str) -> str:
    module, _, function = name.rpartition("/")[2].partition(".py::")
    return KINDS.get(function) or KINDS[module]


def summary(stats: Stats) -> List[str]:
    """A line for each kind of promise, and the verdict."""
    lines = []
    for one in dict.fromkeys(KINDS.values()):
        found = [outcome for name, outcome in outcomes(stats).items() if kind(name) == one]
        words = [("failed", "broken"), ("skipped", "not tested here")]
        aside = [f"{found.count(outcome)} {word}" for outcome, word in words if outcome in found]
        if found:
            kept = f"{found.count('passed')}/{len(found)}"
            lines.append(f"{one:25}{kept:>6}  {', '.join(aside)}".rstrip())
    return [*lines, verdict(stats)]


def verdict(stats: Stats) -> str:
    """How many promises are kept, and what becomes of a server where they are not, in one line."""
    found = list(outcomes(stats).values())
    broken, skipped, promises = found.count("failed"), found.count("skipped"), count(len(found), "promise")
    aside = f" ({count(skipped, 'other')} could not be tested: see --verbose)" if skipped else ""
    if broken:
        harms = list(dict.fromkeys(filter(None, (getattr(report, "harm", "") for report in stats["failed"]))))
        does = f"{', '.join(harms[:-1])}{' and ' if harms[1:] else ''}{''.join(harms[-1:])}"
        why = f": a rotation at a bad moment {does}" if harms else ""
        return f"{broken} of {promises} {'is' if broken == 1 else 'are'} broken here{why}{aside}"
    if len(found) == skipped:
        return "no promise was tested here"
    kept = len(found) - skipped
    return f"{kept} of {promises} {'holds' if kept == 1 else 'hold'} here{aside}"
