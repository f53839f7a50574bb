"""Gunicorn's patch changes nothing of what logging configurations do but which files are reopened."""

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import environments
import pytest
from environments import GUNICORN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCRIPT = Path(__file__).with_name("served") / "logs.py"
Drawn = Dict[str, Any]

#: Handlers, as dictConfig has them.
KINDS = (
    "logging.FileHandler",
    "logging.handlers.RotatingFileHandler",
    "logging.handlers.TimedRotatingFileHandler",
    "logging.handlers.WatchedFileHandler",
)
LOGGERS = ("", "gunicorn.error", "gunicorn.access", "application")
SETTINGS = st.fixed_dictionaries(
    {
        "errorlog": st.sampled_from(["-", "error.log"]),
        "accesslog": st.sampled_from([None, "-", "access.log"]),
        "loglevel": st.sampled_from(["info", "error"]),
        "capture_output": st.booleans(),
        "disable_redirect_access_to_syslog": st.booleans(),
        "syslog": st.booleans(),
        "syslog_addr": st.just("udp://127.0.0.1:9"),
        "statsd_host": st.just("127.0.0.1:9"),
    }
)
files = st.builds(lambda kind, delay: {"class": kind, "delay": delay}, st.sampled_from(KINDS), st.booleans())
others = st.sampled_from(
    [{"class": "logging.NullHandler"}, {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}]
)


@st.composite
def configurations(draw: st.DrawFn) -> Drawn:
    names = ["one", "two", "three"]
    handlers = {name: {**draw(st.one_of(files, others)), "formatter": "plain"} for name in names}
    for name, handler in handlers.items():
        if "delay" in handler:
            handler["filename"] = f"{name}.log"
    loggers = {
        name: {
            "handlers": draw(st.lists(st.sampled_from(names), max_size=2, unique=True)),
            "level": draw(st.sampled_from(["INFO", "ERROR"])),
            **({"propagate": draw(st.booleans())} if name else {}),
        }
        for name in LOGGERS
    }
    root = loggers.pop("")
    return {
        "class": draw(st.sampled_from(["Logger", "Statsd", "Overriding"])),
        "settings": draw(SETTINGS),
        "how": draw(st.sampled_from(["", "logconfig_dict", "logconfig_json", "logconfig"])),
        "config": {
            "version": 1,
            "disable_existing_loggers": draw(st.booleans()),
            "formatters": {"plain": {"format": "%(levelname)s %(message)s"}},
            "handlers": handlers,
            "loggers": loggers,
            "root": root,
        },
        "ini": ini(handlers, {"root": root, **loggers}),
        "steps": draw(st.lists(st.sampled_from(["log", "rotate", "reopen"]), max_size=5)) + ["reopen", "log"],
    }


def ini(handlers: Dict[str, Drawn], loggers: Dict[str, Drawn]) -> str:
    """The same for fileConfig."""
    lines = [f"[loggers]\nkeys={','.join(loggers)}", f"[handlers]\nkeys={','.join(handlers)}"]
    lines.append("[formatters]\nkeys=plain\n[formatter_plain]\nformat=%(levelname)s %(message)s")
    for name, one in loggers.items():
        lines.append(f"[logger_{name}]\nlevel={one['level']}\nhandlers={','.join(one['handlers'])}")
        lines.append(f"qualname={name}\npropagate={int(one.get('propagate', True))}" if name != "root" else "")
    for name, one in handlers.items():
        arguments = {"filename": one.get("filename"), "delay": one.get("delay")} if "delay" in one else {}
        kind = one["class"].replace("logging.", "", 1)
        lines.append(f"[handler_{name}]\nclass={kind}\nformatter=plain\nargs=()\nkwargs={arguments}")
    return "\n".join(lines) + "\n"


class Process:
    """Gunicorn in another process, which says what it makes of a configuration."""

    def __init__(self, python: Path) -> None:
        self.process = subprocess.Popen(
            [str(python), "-W", "ignore", str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.communicate()

    def outcome(self, drawn: Drawn) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(drawn) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuple[Process, Process]]:
    """The published release, and the patched one."""
    pristine = environments.cached(list(environments.pythons())[-1], f"gunicorn=={GUNICORN}")
    patched = environments.patched_copy(pristine, tmp_path_factory.mktemp("patched") / "venv", "gunicorn", GUNICORN)
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(Process(pristine.python)), stack.enter_context(Process(patched.python))


def whole(texts: Dict[str, str]) -> Dict[str, List[str]]:
    """The lines of each log, in whichever of its files."""
    found: Dict[str, List[str]] = {}
    for name, text in texts.items():
        found.setdefault(name.partition(".log.")[0].replace(".log", ""), []).extend(text.splitlines())
    return {name: sorted(lines) for name, lines in found.items()}


def never_reopened(drawn: Drawn) -> "set[str]":
    """The files that the published release never reopens: those of handlers that only the root logger has, or none."""
    config = drawn["config"]
    named = {handler for logger in config["loggers"].values() for handler in logger["handlers"]}
    return {f"{name}.log" for name in config["handlers"].keys() - named}


def same(pair: Tuple[Process, Process], drawn: Drawn) -> None:
    upstreams, ours = (process.outcome(drawn) for process in pair)
    assert ours["said"] == upstreams["said"]
    assert ours["descriptors"] == upstreams["descriptors"]
    assert whole(ours["texts"]) == whole(upstreams["texts"])
    for name in ours["texts"].keys() | upstreams["texts"].keys():
        if f"{name.partition('.log')[0]}.log" not in never_reopened(drawn):
            assert ours["texts"].get(name) == upstreams["texts"].get(name), name


@pytest.mark.parametrize("examples", [25, pytest.param(3000, marks=pytest.mark.full)])
def test_nothing_else_changes(pair: Tuple[Process, Process], examples: int) -> None:
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(drawn=configurations())
    def check(drawn: Drawn) -> None:
        same(pair, drawn)

    check()
