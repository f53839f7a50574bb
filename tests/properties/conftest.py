"""
How the properties run, and what they print: against one environment, on one server of each kind.

_classes() says which worker classes a property runs with. --effort quick draws the fewest examples, but tests all of
uvicorn's: tests run it on many environments.
"""

import compileall
import contextlib
import functools
import inspect
import os
import re
import shutil
import tempfile
import textwrap
from pathlib import Path
from typing import Any, Callable, Dict, Generator, Iterator, List, Mapping, Optional, Set, Tuple

import hypothesis
import pytest
from usr1 import patches

from properties import environment as environments
from properties.environment import ASGI, GEVENT, GTHREAD, SYNC, Environment, release
from properties.expect import MEANINGS, Broken
from properties.promises import summary
from properties.server import SERVED, Server

UNPATCHED = os.environ.get("USR1_UNPATCHED", "")  # Published files, if tests/test_mutations.py changes patched ones
UNTESTED = 6  # The exit status, also in proof.py, if only the set-up of some tests failed; 0 to 5 are pytest's
CUT_SHORT = "keeps tests from their end"  # Not the server's harm, but the test's own failure: it breaks no promise
TOLD: Set[str] = set()  # The tests whose line was printed, for "N of M"
#: Gunicorn's own worker classes, and the tests that run with each where one is enough; the others with the first one
OWN_TESTS = {
    GTHREAD: ("test_way_out", "test_stopping", "test_other_ends", "test_reopening", "test_in_flight"),
    ASGI: ("test_turnover", "test_exactly_once", "test_silence", "test_unprivileged", "test_replaced_reopening"),
    GEVENT: ("test_boot", "test_inheritance", "test_survival"),
}


def pytest_configure(config: pytest.Config) -> None:
    effort = config.getoption("--effort")
    hypothesis.settings.register_profile(
        "signals",
        max_examples={"quick": 3, "default": 10, "thorough": 150}[effort],
        derandomize=effort != "thorough",  # The same ones each time, or apply.sh and the default tests fail by chance
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,  # One reason for each property is enough, and several hide each other
        # A schedule is short, and what it shows is often a race: shrinking would take long and say little.
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.settings.load_profile("signals")
    if config.getoption("--environment") is not None:
        try:
            _environment(config)
        except environments.Unusable as error:
            raise pytest.UsageError(str(error)) from error


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> Optional[bool]:
    # The properties are of an environment: without one there is nothing to run them against.
    if config.getoption("--environment") is None and collection_path.name.startswith("test_"):
        return True
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    environment, effort = _environment(metafunc.config), metafunc.config.getoption("--effort")
    if "worker_class" in metafunc.fixturenames:
        names = _classes(environment, effort, metafunc.function)
        metafunc.parametrize("worker_class", names, scope="session")
    if "one_worker_class" in metafunc.fixturenames:
        firsts = [names[0] for names in environment.modules] or [SYNC]
        metafunc.parametrize("one_worker_class", firsts, scope="session")


def _classes(environment: Environment, effort: str, test: Callable[..., None]) -> List[str]:
    """Those that a property runs with: of each kind one, but all with --effort thorough."""
    by_module, own = environment.modules, environment.own_classes
    if effort == "thorough":
        return [*environment.worker_classes, *own]
    serving = test.__module__ == "properties.test_serving"
    if not serving:
        classes = [names[0] for names in by_module]
    elif effort == "quick" or len(by_module) == 1:
        classes = environment.worker_classes
    else:  # The first class of one module, the second of the next: so more loops and parsers are tested
        classes = [names[n % len(names)] for n, names in enumerate(by_module)]
    if own and (by_module or not serving):  # Without uvicorn, each of Gunicorn's own serves in test_serving.py
        own = [next((name for name in own if test.__name__ in OWN_TESTS.get(name, ())), own[0])]
    return [*classes, *own]


def pytest_runtest_setup(item: pytest.Function) -> None:
    drawn = getattr(item.function, "hypothesis", None)
    if drawn:
        # All worker classes share it: unwrap it first, or the failure of the class before is raised again
        drawn.inner_test = failing_once(inspect.unwrap(drawn.inner_test))


def failing_once(test: Callable[..., None]) -> Callable[..., None]:
    """
    Hypothesis repeats an example that has failed, to show it: this fails at once then, for the first reason.

    To wait for the same thing again tells nothing new, and a race that does not come out the same is no less one.
    """
    failures: List[Exception] = []

    @functools.wraps(test)
    def run(*args: Any, **arguments: Any) -> None:
        if failures:
            raise failures[0]
        try:
            test(*args, **arguments)
        except hypothesis.errors.UnsatisfiedAssumption:
            raise
        except Exception as error:
            failures.append(error)
            raise

    return run


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Function, call: "pytest.CallInfo[None]") -> Generator[None, Any, None]:
    outcome = yield
    reason, harm = _reason(call.excinfo.value) if call.excinfo else ("", "")
    sentence = item.function.__doc__.splitlines()[0]
    # What goes wrong before a test begins tells nothing about the server, unless a promise is broken.
    untested = call.when == "setup" and harm == CUT_SHORT
    vars(outcome.get_result()).update(sentence=sentence, reason=reason, harm=harm, untested=untested)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    stats = session.config.pluginmanager.getplugin("terminalreporter").stats
    if session.exitstatus == pytest.ExitCode.TESTS_FAILED and not stats.get("failed"):
        session.exitstatus = UNTESTED


def _reason(error: BaseException) -> Tuple[str, str]:
    """Why a promise is broken, or is not tested, in a sentence; and what harm is done."""
    if isinstance(error, Broken):
        return str(error), error.harm
    if isinstance(error, pytest.skip.Exception):
        return str(error), ""
    return f"this could not be tested to its end, for {type(error).__name__}: {error}", CUT_SHORT


def pytest_report_teststatus(report: pytest.TestReport, config: pytest.Config) -> Optional[Tuple[str, str, str]]:
    """Instead of a dot, the sentence that the property is, and why it does not hold."""
    if not hasattr(report, "sentence") or not (report.when == "call" or report.outcome != "passed"):
        return None
    served = re.search(r"\[(.*)\]", report.nodeid)
    line = report.sentence + (f" [{served[1]}]" if served else "")
    TOLD.add(report.nodeid)
    progress = f"{len(TOLD)} of {config.pluginmanager.getplugin('session').testscollected}"
    outcome = "untested" if report.untested else report.outcome
    reasons = filter(None, (report.reason, MEANINGS.get(report.harm)))
    reason = textwrap.indent("".join(f"{one}\n" for one in reasons), "       ")
    return outcome, f"{outcome.upper()} {line} ({report.duration:.1f} s, {progress})\n{reason}", outcome.upper()


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter", config: pytest.Config) -> None:
    if config.getoption("--environment") is not None:
        terminalreporter.ensure_newline()
        for line in summary(terminalreporter.stats):
            terminalreporter.line(line)


def _environment(config: pytest.Config) -> Environment:
    return environments.inspect(config.getoption("--environment"))


def pytest_report_header(config: pytest.Config) -> Optional[str]:
    if config.getoption("--environment") is None:
        return None
    environment = _environment(config)
    return f"{environment.path}: " + ", ".join(f"{name} {version}" for name, version in environment.versions.items())


@pytest.fixture(scope="session")
def environment(request: pytest.FixtureRequest) -> Environment:
    return _environment(request.config)


class Servers:
    """Keeps one server of each kind running from example to example."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.running: Dict[Tuple[str, ...], Server] = {}

    @contextlib.contextmanager
    def use(
        self, worker_class: str, *options: str, workers: int = 2, variables: Mapping[str, str] = {}
    ) -> Iterator[Server]:
        """A server that serves and has no rotated files; one that an example spoils is not used again."""
        key = worker_class, *options, str(workers), str(variables)
        if key not in self.running:
            server = Server(self.environment.python, worker_class, workers, options, variables)
            self.running[key] = server.__enter__()
        server = self.running[key]
        try:
            yield server
            server.wait_until_serving()
            if server.logs.rotated() or server.logs.removed:
                server.signal("arbiter")
                server.wait_until_reopened(server.pids("all"))
                server.logs.discard()
        except BaseException:
            del self.running[key]
            server.__exit__()
            raise


@pytest.fixture(scope="session")
def published(environment: Environment) -> Iterator[Dict[str, str]]:
    """The variables with which a server runs as published."""
    with tempfile.TemporaryDirectory(prefix="usr1-") as path:
        os.chmod(path, 0o755)  # Workers of another user import from it, too
        patched = put_published(environment, Path(path))
        if not patched and not os.environ.get("USR1_SETTINGS"):  # The settings module needs no patch
            pytest.skip("nothing here is patched: there is nothing to compare it with")
        yield {"PYTHONPATH": os.pathsep.join([path, str(SERVED)]), "USR1_SETTINGS": ""}


def put_published(environment: Environment, path: Path) -> bool:
    """Put each package that a patch is for into a directory as it was published; whether one is patched."""
    patched = False
    for info in environment.path.glob("lib/py*3.*/site-packages/*.dist-info"):
        distribution = info.stem.partition("-")[0].replace("_", "-")
        patch = patches.find(distribution, release(info)) if distribution in patches.DISTRIBUTIONS else None
        if patch is None:
            continue
        for package in {Path(part.target).parts[0] for part in patch.parts}:
            shutil.copytree(info.parent / package, path / package, ignore=shutil.ignore_patterns("__pycache__"))
        for part in patch.parts:
            target = path / part.target
            source = target.read_bytes()
            if patches.sha256(source) == part.patched_sha256:
                patched = True
                source = part.revert(source)
            elif UNPATCHED and patches.sha256(source) != part.pristine_sha256:
                patched = True
                source = Path(UNPATCHED, part.target).read_bytes()
            if patches.sha256(source) != part.pristine_sha256:
                odd = f"{part.target} is neither as published nor as patched"
                pytest.skip(f"{odd}: there is nothing to compare it with")
            target.write_bytes(source)
    compileall.compile_dir(str(path), quiet=1)
    return patched


@pytest.fixture(scope="session")
def servers(environment: Environment) -> Iterator[Servers]:
    servers = Servers(environment)
    yield servers
    for server in servers.running.values():
        server.__exit__()
