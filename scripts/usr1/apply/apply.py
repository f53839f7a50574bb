"""scripts/apply.sh: what it does in which order, and what it says."""

import argparse
import io
import json
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Dict, List, NamedTuple, NoReturn, Optional, Sequence

from usr1 import patches
from usr1.apply import change, figures, installed, proof, servers, user
from usr1.apply.environment import Environment, create, exists, find
from usr1.apply.installed import Installed, State
from usr1.apply.screen import say
from usr1.apply.user import User
from usr1.refusal import HalfDone, Refusal, refusal

DONE, FAILED, REFUSED, HALF_DONE = range(4)

Report = Dict[str, Any]
Only = Sequence[str]  # The distributions that are asked for; none means all


class Tests(NamedTuple):
    """What is done besides patching."""

    properties: bool
    figures: bool
    verbose: bool


class Interrupted(SystemExit):
    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


class Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        say(f"apply.sh: {message}; see scripts/apply.sh --help", stream=sys.stderr)
        sys.exit(REFUSED)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Returns the exit status."""
    parser = Arguments(add_help=False, allow_abbrev=False)
    does = parser.add_mutually_exclusive_group()
    for option in ("--no-tests", "--tests-only", "--check", "--revert", "--dry-run"):
        does.add_argument(option, action="store_true")
    parser.add_argument("--create", action="store_true")
    parser.add_argument("--no-figures", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", action="append", choices=patches.DISTRIBUTIONS, default=[])
    parser.add_argument("paths", metavar="VENV", nargs="+", type=_path)
    options = parser.parse_args(arguments)
    if options.json and not options.check:
        parser.error("--json goes with --check")
    if options.create and (options.check or options.revert or options.dry_run or options.tests_only):
        parser.error("--create goes with what patches")
    for option, given in (("--no-figures", options.no_figures), ("--verbose", options.verbose)):
        if given and (options.check or options.revert or options.dry_run or options.no_tests):
            parser.error(f"{option} goes with what tests")
    if options.only and options.tests_only:
        parser.error("--tests-only tests all that is there, --only is for what changes it")
    if options.check:
        return check(options.paths, options.only, options.json)
    if len(options.paths) > 1:
        parser.error("only --check takes several environments")
    [path] = options.paths
    tests = Tests(not options.no_tests, not (options.no_tests or options.no_figures), options.verbose)
    try:
        if options.revert:
            return revert(find(path), options.only)
        if options.dry_run:
            return dry_run(find(path), options.only)
        if options.tests_only:
            return tests_only(find(path), tests)
        if options.create and not exists(path):
            return apply_anew(path, options.only, tests)
        return apply(find(path), options.only, tests)
    except Refusal as error:
        say(f"apply.sh: {error}", stream=sys.stderr)
        return REFUSED
    except HalfDone as error:
        say(f"apply.sh: {error}", stream=sys.stderr)
        return HALF_DONE
    except Interrupted as error:
        say(f"apply.sh: interrupted by {error.signal.name}; the state now:", stream=sys.stderr)
        say(_summary(_report(path, options.only, explain=False)), stream=sys.stderr)
        raise


def _path(name: str) -> Path:
    if not name:  # It would be the working directory
        raise argparse.ArgumentTypeError("expected a path, found an empty one (an unset variable?)")
    return Path(name)


def apply(environment: Environment, only: Only, tests: Tests) -> int:
    with change.alone(environment):
        found = _known(environment, only)
        say(f"{environment.path}: Python {environment.version}, gunicorn {_gunicorn(environment)}")
        tester = _tester(environment) if tests.properties else None
        is_patched = all(one.finished and one.is_patched for one in found)  # Whichever the revision
        before = figures.measure(environment, "before", tester) if tests.figures and not is_patched else {}
        change.make(environment, [(one, one.patched) for one in found])
        stays = False  # Until it is proved: whatever ends this before, a signal too, puts the files back
        try:
            for was, one in zip(found, installed.find(environment, only)):
                say(f"  {_line(one)}{', as before' if was.finished and was.contents == one.contents else ''}")
            stays = not tests.properties or _prove(environment, tests, tester, before)
        finally:
            if not stays:
                _put_back(environment, only, found)
    if not stays:
        return FAILED
    say(f"undo:    {_undo(environment, found)}")
    say(f"restart: {_restart(environment, found)}")
    if environment.warning:
        say(environment.warning)
    return DONE


def _prove(environment: Environment, tests: Tests, tester: Optional[User], before: figures.Columns) -> bool:
    """Whether every promise is kept, in the tests and under load; before is what was measured earlier."""
    kept = proof.run_checks(environment, tester, tests.verbose)
    now = figures.measure(environment, "after" if before else "now", tester) if tests.figures else {}
    patched = [one.distribution for one in installed.find(environment) if one.is_patched]
    figures.show({**before, **now}, kept, patched)
    return kept and not any(one.wrong for one in now.values())


def apply_anew(path: Path, only: Only, tests: Tests) -> int:
    """Apply to a new environment, which stays only if all goes well."""
    uvicorn, gunicorn = (patches.releases(distribution)[-1] for distribution in ("uvicorn", "gunicorn"))
    say(f"creating {path} with uvicorn[standard] {uvicorn} and gunicorn {gunicorn} ...")
    create(path, [f"uvicorn[standard]<={uvicorn}", f"gunicorn<={gunicorn}"])
    status = None
    try:
        status = apply(find(path), only, tests)
    finally:
        if status != DONE:
            shutil.rmtree(path)
    return status


def revert(environment: Environment, only: Only) -> int:
    with change.alone(environment):
        found = _known(environment, only)
        fork = next((one for one in found if one.state is State.FORK), None)
        if fork:
            raise refusal(
                f"{fork.distribution} {fork.release} was installed as the fork, not patched",
                "a release that scripts/apply.sh has patched",
                f"{fork.release} in {environment.site_packages}",
                _undo(environment, found),
            )
        change.make(environment, [(one, one.pristine) for one in found])
    for one in found:
        done = "is" if one.finished and one.state is State.PRISTINE else "put back"
        say(f"{environment.path}: {one.distribution} {one.release} {done} as it was published")
    say(f"restart: {_restart(environment, found)}")
    return DONE


def dry_run(environment: Environment, only: Only) -> int:
    for one in _known(environment, only):
        if one.patch and not one.is_patched:
            say(one.patch.text, end="")
        else:  # Not among what patch(1) takes
            say(f"{environment.path}: nothing to apply to {_line(one)}", stream=sys.stderr)
    return DONE


def tests_only(environment: Environment, tests: Tests) -> int:
    found = installed.find(environment)
    for one in found:
        if one.problem and one.state in (State.MISSING, State.OUTSIDE):
            raise one.problem
    say(f"{environment.path}: Python {environment.version}, gunicorn {_gunicorn(environment)}")
    tester = _tester(environment)
    for one in found:
        say(f"  {_line(one)}")
    return DONE if _prove(environment, tests, tester, {}) else FAILED


def check(paths: List[Path], only: Only, as_json: bool) -> int:
    """DONE if everything there is patched, REFUSED if there is no environment or nothing to patch, else FAILED."""
    reports = [_report(path, only, explain=len(paths) == 1) for path in paths]
    if as_json:
        say(json.dumps(reports, indent=2))
    else:
        say("\n".join(map(_summary, reports)))
    if any(report["patched"] is None for report in reports):
        return REFUSED
    return DONE if all(report["patched"] for report in reports) else FAILED


def _report(path: Path, only: Only, explain: bool) -> Report:
    try:
        environment = find(path)
        found = installed.find(environment, only)
        gunicorn = installed.version(environment, "gunicorn")
        restart = servers.outdated(environment, [file for one in found if not one.problem for file in one.written])
    except Refusal as error:
        problem = str(error) if explain else str(error).splitlines()[0]
        return {"venv": str(path), "patched": None, "problem": problem, "restart": [], "installed": []}
    states = {one.state for one in found}
    problems = [str(one.problem) for one in found if one.problem] + list(filter(None, [environment.warning]))
    return {
        "venv": str(path),
        "python": environment.version,
        "gunicorn": gunicorn,
        "patched": None if State.MISSING in states else states <= {State.PATCHED, State.FORK},
        "problem": "\n".join(problems if explain else []) or None,
        "restart": restart,
        "installed": [
            {
                "distribution": one.distribution,
                "release": one.release,
                "state": one.state.value,
                "note": one.note,
                "patch": one.applied and one.applied.path.name,
                "revision": one.applied and one.applied.revision,
                "finished": one.finished,
                "line": _line(one),
            }
            for one in found
        ],
    }


def _summary(report: Report) -> str:
    lines = "; ".join(one["line"] for one in report["installed"])
    restart = f"; restart pid {', '.join(map(str, report['restart']))}" if report["restart"] else ""
    return "\n".join(filter(None, [lines and f"{report['venv']}: {lines}{restart}", report["problem"]]))


def _line(one: Installed) -> str:
    unfinished = f"; {one.unfinished}, run scripts/apply.sh to finish it" if one.unfinished else ""
    name = f"{one.distribution} {one.release}".rstrip()
    return f"{name}: {one.state.value}{one.note and f' ({one.note})'}{unfinished}"


def _known(environment: Environment, only: Only) -> List[Installed]:
    """What is installed; raises Refusal, with options that leave it out, if any is in no state that patches know."""
    found = installed.find(environment, only)
    others = "".join(f" --only {one.distribution}" for one in found if not one.problem)
    for one in found:
        if one.problem:
            raise Refusal(f"{one.problem}{others and f'; or leave it as it is:{others}'}")
    return found


def _tester(environment: Environment) -> Optional[User]:
    """Whom to become to run what is installed there, if anybody; raises Refusal if it is not to be tested."""
    if not os.path.exists("/proc/self/status"):
        raise refusal(
            f"{environment.path} cannot be tested on this system",
            "Linux with /proc, where the tests look at the servers",
            f"no /proc ({os.uname().sysname})",
            "patch without tests: --no-tests",
        )
    return user.choose(environment, [proof.ROOT / "setup.cfg", proof.ROOT / "tests"])


def _gunicorn(environment: Environment) -> str:
    version = installed.version(environment, "gunicorn")
    if version is None:
        raise refusal(
            f"gunicorn is not installed in {environment.path}",
            "gunicorn, whose workers the patch is for",
            f"none in {environment.site_packages}",
            f"{environment.pip('install gunicorn')}, then run this again",
        )
    return version


def _put_back(environment: Environment, only: Only, found: List[Installed]) -> None:
    """Give the files the contents that they had; raises HalfDone if that cannot be."""
    try:
        now = installed.find(environment, only)
        for one in now:
            if one.problem:
                raise one.problem
        expected = [f"{one.distribution} {one.release}" for one in found]
        releases = [f"{one.distribution} {one.release}" for one in now]
        if releases != expected:  # An installer was here during the tests
            raise refusal("there are other releases by now", ", ".join(expected), ", ".join(releases), "run this again")
        change.make(environment, [(one, then.contents) for one, then in zip(now, found)])
    except Refusal as error:
        raise HalfDone(
            f"{environment.path} was patched, but not tested to the end, and cannot be restored: {error}"
        ) from error
    say(f"restored: {environment.path} is as it was found")


def _undo(environment: Environment, found: List[Installed]) -> str:
    """
    The command line that does it: the published release in the place of a fork, and the published files.

    The fork of a release satisfies "==" too, but not "===": see PEP 440.
    """
    forks = [one for one in found if one.state is State.FORK]
    commands = [environment.reinstall(f"{one.distribution}==={installed.release_of(one.release)}") for one in forks]
    if forks != found:
        commands.append(f"scripts/apply.sh --revert {shlex.quote(str(environment.path))}")
    return " && ".join(commands)


def _restart(environment: Environment, found: List[Installed]) -> str:
    pids = servers.outdated(environment, [file for one in found for file in one.written])
    if not pids:
        return "not needed, as no running server uses the old code"
    return f"the servers that still run the old code: gunicorn with pid {', '.join(map(str, pids))}"


def _end(number: int, frame: Optional[FrameType]) -> NoReturn:
    for other in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)  # Told twice, it has to undo all the same.
    raise Interrupted(number)


if __name__ == "__main__":
    # Told to end, undo what is not finished. A shell starts what runs in the background with SIGINT ignored; the
    # tests would inherit that, and could not be stopped by it.
    signals = [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # As nohup has it
        signals.append(signal.SIGHUP)
    for number in signals:
        signal.signal(number, _end)
    # A path may be no text, and a stream may be closed (>&-).
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115
        setattr(sys, name, io.TextIOWrapper(stream.detach(), errors="backslashreplace"))
    sys.exit(main())
