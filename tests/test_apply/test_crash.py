"""
Killed at any system call, failed there, or broken before: fully done or as before, and a true exit status.

strace makes each file-system call of a change fail, or kills the process at it; the next run ends it well.
Environments are as broken as Hypothesis makes them, and nothing outside the files of uvicorn changes.
What fails that seldom does is said, and undone; of two runs at once one waits. And of the files of a patch
all are patched or none, whatever revision each is at.
"""

import contextlib
import ctypes
import errno
import fcntl
import functools
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import MonkeyPatch
from usr1 import patches, record
from usr1.apply import apply, change, installed
from usr1.apply.environment import Environment
from usr1.apply.files import Tree
from usr1.apply.installed import UNFINISHED, State
from usr1.refusal import HalfDone, Refusal
from usr1.upkeep import refresh
from usr1.upkeep.backports import Change, Edit

from test_apply import conftest as trees
from test_apply.conftest import Run

#: Of the calls that touch files, those that change something.
CHANGING = (
    "chmod,chown,fallocate,fchdir,fchmod,fchmodat,fchown,fchownat,fdatasync,fsync,ftruncate,futimesat,link,linkat,"
    "mkdir,mkdirat,open,openat,pwrite64,rename,renameat,renameat2,rmdir,symlink,sync,truncate,unlink,unlinkat,"
    "utimensat,write,writev"
)

PR_SET_PTRACER, ANY = 0x59616D61, -1


def make(environment: Environment, patched: bool = True) -> int:
    """What scripts/apply.sh does between finding the environment and testing it; the exit status."""
    try:
        with change.alone(environment):
            found = installed.find(environment)
            for one in found:
                if one.problem:
                    raise one.problem
            change.make(environment, [(one, one.patched if patched else one.pristine) for one in found])
    except Refusal:
        return 2
    except HalfDone:
        return 3
    return 0


def followed(environment: Environment, log: Path, *options: str) -> Optional[int]:
    """
    The exit status of a change under strace with these options, negative if a signal ended it.

    Forked, not started, so that all is imported and strace counts nothing but the change.
    """
    fork = multiprocessing.get_context("fork")
    go = fork.Event()  # Without a system call that is counted
    process = fork.Process(target=_follow_me, args=(environment, go))
    process.start()
    try:
        command = ["strace", "-o", str(log), "-p", str(process.pid), *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr is not None
            said = strace.stderr.readline()
            assert "attached" in said, f"strace, which this test needs, said {said!r}"
            go.set()
            process.join()
    finally:
        process.kill()
        process.join()
    return process.exitcode


def _follow_me(environment: Environment, go: Event) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY, 0, 0, 0)
    go.wait()
    sys.exit(make(environment))


class Call(NamedTuple):
    name: str
    number: int  # Among the calls of that name in the life of the process
    changes: bool  # Something on disk


class Trial:
    """A change that is made again and again, and what the environment is before and after it."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.log = environment.path.with_name("log")
        self.pristine = trees.snapshot(environment.path)
        assert make(environment) == 0
        self.patched = trees.snapshot(environment.path)
        assert make(environment, patched=False) == 0

    def calls(self) -> List[Call]:
        """The file-system calls of the change, each once."""
        trees.compile_all(self.environment)
        assert followed(self.environment, self.log, "-e", "trace=%file,%desc") == 0
        seen = Counter[str]()
        found: List[Call] = []
        for name, rest in re.findall(r"(?m)^([a-z0-9_]+)\((.*)", self.log.read_text(errors="replace")):
            seen[name] += 1
            # An open that creates nothing only looks
            changes = "O_CREAT" in rest if name.startswith("open") else name in CHANGING.split(",")
            found.append(Call(name, seen[name], changes))
        assert sum(call.changes for call in found) > 10
        assert make(self.environment, patched=False) == 0
        return found

    def after_fault(self, call: Call, fault: str) -> None:
        """Have one call of the change fail, or kill it; see it end well."""
        trees.compile_all(self.environment)
        when = f"{call.number}{'+' * fault.endswith('+')}"  # With a + all later calls of that name fail too
        inject = f"inject={call.name}:{fault.rstrip('+')}:when={when}"
        status = followed(self.environment, self.log, "-e", f"trace={call.name}", "-e", inject)
        assert status == -9 or "INJECTED" in self.log.read_text()
        assert trees.stale(self.environment) == []
        states = {one.state for one in installed.find(self.environment)}
        assert states <= {State.PRISTINE, State.PARTLY, State.PATCHED}, "each file is whole, old or new"
        now = trees.snapshot(self.environment.path)
        if fault == "error=EIO+" and call.name == "unlinkat":  # Nor can it remove what it has made then
            now = {name: entry for name, entry in now.items() if not name.endswith(UNFINISHED)}
        if fault == "signal=KILL":
            assert status == -9
        elif status == 0:
            assert now == self.patched
        elif status == 2:
            assert now == self.pristine
        else:
            assert status == 3 and fault.endswith("+"), "only an error that stays also keeps it from being undone"

        if call.number % 2:
            assert make(self.environment) == 0
            assert trees.snapshot(self.environment.path) == self.patched
        assert make(self.environment, patched=False) == 0
        assert trees.snapshot(self.environment.path) == self.pristine


@pytest.fixture
def read_once(monkeypatch: MonkeyPatch) -> None:
    """It is not the file system of the patches that fails."""
    monkeypatch.setattr(patches, "catalogue", functools.lru_cache(patches.catalogue))


@pytest.mark.parametrize("fault", ["signal=KILL", "error=EIO", pytest.param("error=EIO+", marks=pytest.mark.full)])
def test_killed_or_failed_at_any_call(
    fault: str, environment: Environment, read_once: None, request: pytest.FixtureRequest
) -> None:
    """When an error stays, what was done cannot always be undone; that is said, and the next run does it."""
    trial = Trial(environment)
    calls = trial.calls()
    if fault == "error=EIO+":
        calls = [call for call in calls if call.changes]
    elif not request.config.getoption("--full"):
        # Where it only looks, nothing changes until the next call, so to be killed there is to be killed then
        calls = [call for call in calls if call.changes and call.number % 3 == 1]
    assert calls
    for call in calls:
        trial.after_fault(call, fault)


class Files:
    """Those of uvicorn in an environment, some of which may be gone already."""

    def __init__(self, environment: Environment) -> None:
        self.source = trees.workers(environment)
        self.info = sorted(environment.site_packages.glob("uvicorn-*.dist-info"))[0]
        self.record = self.info / "RECORD"
        self.metadata = self.info / "METADATA"


def substitute(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(re.sub(old, new, path.read_bytes()))


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def in_record(old: bytes, new: bytes) -> Callable[[Files], object]:
    return lambda files: substitute(files.record, old, new)


[PART] = patches.catalogue("uvicorn")[-1].parts
PATCHED = record.digest(PART.patched_sha256).encode()
LINE = rb'(?m)^"?uvicorn/workers\.py"?,.*\n'
VERSION = rb"(?m)^Version: .*"

DAMAGES: Dict[str, Callable[[Files], object]] = {
    "source missing": lambda files: files.source.unlink(),
    "source with CRLF": lambda files: substitute(files.source, rb"\n", rb"\r\n"),
    "source a directory": lambda files: make_directory(files.source),
    "source a link": lambda files: files.source.symlink_to(files.source.rename(files.source.with_name("w.py"))),
    # As patch(1) would, or a run of this that was killed
    "source patched by hand": lambda files: files.source.write_bytes(PART.apply(files.source.read_bytes())),
    "RECORD says patched": in_record(rb"(?<=workers\.py,)sha256=[^,]*", PATCHED),
    "RECORD missing": lambda files: files.record.unlink(),
    "RECORD with CRLF": in_record(rb"\n", rb"\r\n"),
    "RECORD a directory": lambda files: make_directory(files.record),
    "RECORD without the line": in_record(LINE, b""),
    "RECORD with the line twice": in_record(LINE, rb"\g<0>\g<0>"),
    "RECORD with more lines": in_record(LINE, b"../other,sha256=x,1\n\xff,,\n\\g<0>\n,,\n"),
    "RECORD without hashes": in_record(LINE, b"uvicorn/workers.py,,\n"),
    "RECORD without the size": in_record(rb"(?<=workers\.py)(.*,)\d+", rb"\1"),
    "RECORD with quotes": in_record(rb"(?m)^uvicorn/workers\.py", rb'"\g<0>"'),
    "RECORD with another hash": in_record(rb"(?<=workers\.py)(.*)sha256=", rb"\g<0>x"),
    "METADATA missing": lambda files: files.metadata.unlink(),
    "METADATA without a version": lambda files: files.metadata.write_bytes(b"\xff"),
    "a version that is none": lambda files: substitute(files.metadata, VERSION, b"Version: \xff??"),
    "a fork's version": lambda files: substitute(files.metadata, VERSION, b"Version: 0.54.0+usr1.1"),
    "two dist-infos": lambda files: shutil.copytree(files.info, files.info.with_name("uvicorn-0.1.dist-info")),
    "no dist-info": lambda files: shutil.rmtree(files.info),
    "bytecode missing": lambda files: shutil.rmtree(files.source.with_name("__pycache__")),
    "source left behind": lambda files: files.source.with_name(f".workers.py.x{UNFINISHED}").touch(),
    "RECORD left behind": lambda files: (files.info / f".RECORD.x{UNFINISHED}").touch(),
    "editable": lambda files: (files.info / "direct_url.json").write_text('{"dir_info": {"editable": true}}'),
    "archive": lambda files: (files.info / "direct_url.json").write_text("{"),
}


def check_truth(option: str, environment: Environment) -> None:
    """One run: fully done or byte-identical to before."""
    before = trees.snapshot(environment.path, compiled=True)
    status = apply.main([option, "--only", "uvicorn", str(environment.path)])
    now = trees.snapshot(environment.path, compiled=True)
    if status == 2:
        assert now == before
        return
    assert status == 0
    differing = {name for name in {*before, *now} if before.get(name) != now.get(name)}
    for name in differing:
        assert re.search(rf"/uvicorn/(__pycache__/)?workers\.|/RECORD$|\.x{re.escape(UNFINISHED)}$", name), name
    assert not [name for name in now if name.endswith(UNFINISHED)]
    one = trees.only(environment)
    assert one.finished
    assert one.state in ((State.PATCHED, State.FORK) if option == "--no-tests" else (State.PRISTINE,))
    assert trees.stale(environment) == [] or not differing
    # Only that line of RECORD is another, and it is true
    name = os.fspath(one.record.relative_to(environment.path))
    others = [re.sub(LINE, b"", content) for content in (before[name][-1], now[name][-1]) if isinstance(content, bytes)]
    assert others[0] == others[1]
    assert not [wrong for wrong in trees.disagreements(environment) if "uvicorn/workers.py" in wrong]


@pytest.mark.parametrize("name", DAMAGES)
def test_one_damage(name: str, environment: Environment) -> None:
    before = trees.snapshot(environment.path, compiled=True)
    DAMAGES[name](Files(environment))
    assert trees.snapshot(environment.path, compiled=True) != before
    check_truth("--no-tests", environment)


OPTIONS = st.lists(st.sampled_from(["--no-tests", "--revert"]), min_size=1, max_size=3)


def test_several_damages(request: pytest.FixtureRequest, run: Run, read_once: None) -> None:
    @settings(max_examples=2000 if request.config.getoption("--full") else 30, deadline=None)
    @given(st.booleans(), st.lists(st.sampled_from(sorted(DAMAGES)), min_size=2, max_size=4), OPTIONS)
    def check(patched: bool, names: List[str], options: List[str]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            environment = trees.light(Path(directory, "venv"), trees.source())
            if patched:
                run("--no-tests", "--only", "uvicorn", environment)
            for name in names:
                # One before may have removed, or changed, what it is to damage
                with contextlib.suppress(OSError, IndexError, patches.PatchError):
                    DAMAGES[name](Files(environment))
            before = trees.snapshot(environment.path, compiled=True)
            assert apply.main(["--check", str(environment.path)]) in (0, 1)
            assert trees.snapshot(environment.path, compiled=True) == before
            for option in options:
                check_truth(option, environment)

    check()


#: What fails, and the words of the refusal. RECORD is renamed first, then the sources of several distributions.
FAILURES: "Dict[str, tuple[Callable[[MonkeyPatch], object], str]]" = {
    "the first rename": (lambda patch: trees.before(patch, "rename", 1, lambda: trees.fail(errno.EPERM)), "lsattr"),
    "a later one": (lambda patch: trees.before(patch, "rename", 3, lambda: trees.fail(errno.ENOSPC)), "make room"),
    "what was written": (lambda patch: patch.setattr(os, "fsync", lambda file: os.ftruncate(file, 7)), "was read back"),
    "locks": (lambda patch: patch.setattr(fcntl, "flock", lambda *_: trees.fail(errno.ENOLCK)), "No locks available"),
}


@pytest.mark.parametrize("failure, said", FAILURES.values(), ids=FAILURES)
def test_what_fails_is_undone(
    failure: Callable[[MonkeyPatch], object], said: str, environment: Environment, run: Run, monkeypatch: MonkeyPatch
) -> None:
    failure(monkeypatch)
    assert said in run.refused("nothing was changed", "--no-tests", environment)


def test_bytecode_has_left_the_disk_before_the_source_changes(
    environment: Environment, run: Run, monkeypatch: MonkeyPatch
) -> None:
    """Some is never checked against it."""
    before = installed.find(environment)
    synced = []
    monkeypatch.setattr(Tree, "sync", lambda tree, paths: synced.append((sorted(paths), installed.find(environment))))
    run("--no-tests", environment)
    paths, then = synced[0]
    assert paths == sorted(path for one in before for source in one.contents for path in trees.caches(source))
    assert not any(path.exists() for path in paths)
    assert [one.contents for one in then] == [one.contents for one in before]


def test_what_cannot_be_put_back_is_said(environment: Environment, run: Run, monkeypatch: MonkeyPatch) -> None:
    pristine = trees.snapshot(environment.path)
    new = sum(len(one.written) for one in installed.find(environment))
    with monkeypatch.context() as patched:
        trees.before(patched, "rename", 3, trees.fail)
        trees.before(patched, "write", new + 1, trees.fail)  # The first that is to be put back
        assert "could not be undone" in run("--no-tests", environment, status=3).err
    run("--revert", environment)
    assert trees.snapshot(environment.path) == pristine


@pytest.mark.parametrize("name", ["change.leftovers", "apply._line"])
def test_whatever_ends_it_it_is_undone(name: str, environment: Environment, monkeypatch: MonkeyPatch) -> None:
    """While it changes something, and between the change and its proof."""
    before = trees.snapshot(environment.path)
    monkeypatch.setattr(f"usr1.apply.{name}", lambda *_: sys.exit(143))
    with pytest.raises(SystemExit):
        apply.main(["--no-tests", str(environment.path)])
    assert trees.snapshot(environment.path) == before


@pytest.mark.measured
@pytest.mark.parametrize("option, said", [("--no-tests", ", as before"), ("--revert", " put back as it was published")])
def test_another_waits_and_says_so(option: str, said: str, environment: Environment, run: Run) -> None:
    """And looks at nothing before; but --check does not wait."""
    with change.alone(environment):
        waiting = trees.start(*trees.MODULE, option, environment.path)
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == f"waiting for another run on {environment.path} to end ...\n"
        assert waiting.poll() is None
        run("--check", environment, status=1)
        change.make(environment, [(one, one.patched) for one in installed.find(environment)])
    assert said in waiting.communicate(timeout=60)[0]
    assert waiting.returncode == 0


ONLY = ("--only", "gunicorn")


def test_only_what_is_asked_for(environment: Environment, run: Run) -> None:
    run("--no-tests", *ONLY, environment)
    states = [trees.only(environment, name).state for name in ("gunicorn", "uvicorn")]
    assert states == [State.PATCHED, State.PRISTINE]
    run("--check", *ONLY, environment)
    run("--check", environment, status=1)
    run("--check", *ONLY, "--only", "uvicorn", environment, status=1)
    run("--revert", "--only", "uvicorn", environment)
    assert trees.only(environment, "gunicorn").state is State.PATCHED
    run.refused("uvicorn-worker is not installed in ", "--no-tests", "--only", "uvicorn-worker", environment)


def test_some_of_them_patched(environment: Environment, run: Run) -> None:
    """By hand, or by a run that was killed."""
    pristine = trees.snapshot(environment.path)
    file = trees.only(environment, "gunicorn").files[1]
    run("--no-tests", *ONLY, environment)
    patched = trees.snapshot(environment.path)
    for option, content, result in (("--revert", file.content, pristine), ("--no-tests", file.patched, patched)):
        file.path.write_bytes(content)
        assert ": partly patched (its patch: patches/gunicorn/" in run("--check", *ONLY, environment, status=1).out
        run(option, *ONLY, environment)
        assert trees.snapshot(environment.path) == result


@pytest.mark.parametrize("number", [0, -1])
def test_one_changed_by_hand(number: int, environment: Environment, run: Run) -> None:
    path = trees.only(environment, "gunicorn").files[number].path
    path.write_text("by hand\n")
    said = run.refused(f"{path} was changed by hand", "--no-tests", environment)
    assert f"  found:    SHA-256 {patches.sha256(path.read_bytes())}\n" in said
    assert "install --force-reinstall --no-deps gunicorn==" in said
    assert said.endswith(", then run this again; or leave it as it is: --only uvicorn\n")


def test_an_earlier_revision_of_other_files(environment: Environment, run: Run, monkeypatch: MonkeyPatch) -> None:
    """Of one that the current revision changes too, and of one that it does not."""
    pristine = trees.snapshot(environment.path)
    run("--no-tests", *ONLY, environment)
    patched = trees.snapshot(environment.path)
    run("--revert", *ONLY, environment)
    copy = shutil.copytree(patches.PATCHES, environment.path.with_name("patches"))
    monkeypatch.setattr(patches, "PATCHES", copy)
    newest = refresh.newest("gunicorn", patches.catalogue("gunicorn"))
    files = ("gunicorn/glogging.py", "gunicorn/util.py")
    texts = {file: (environment.site_packages / file).read_text() for file in files}
    earlier = Change("Say a word\nOne.", {file: Edit(text, f"{text}# old\n") for file, text in texts.items()})
    current = newest.path.read_text()
    newest.path.write_text(refresh.composed(newest.path, newest, [refresh.Group([*newest.releases], earlier)]))
    run("--no-tests", *ONLY, environment)
    superseded = copy / "gunicorn" / "superseded"
    superseded.mkdir()
    newest.path.rename(superseded / newest.path.name)
    newest.path.write_text(current)
    assert ": patched (patches/gunicorn/superseded/" in run("--check", *ONLY, environment).out
    other = shutil.copytree(environment.path, environment.path.with_name("other"), symlinks=True)
    for option, path, result in (("--no-tests", environment.path, patched), ("--revert", other, pristine)):
        run(option, *ONLY, path)
        assert trees.snapshot(path) == result
