"""What the settings and extension points of gunicorn make different."""

import functools
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from properties import wait
from properties.activities import doing
from properties.cases import Case, Handler
from properties.clients import Load
from properties.conftest import Servers
from properties.environment import Environment, is_own
from properties.expect import BREAKS, CHANGES, LOSES, MISSES, count, expect
from properties.logs import NAMES
from properties.schedules import storm, targets
from properties.server import NOBODY, SERVED, Server, send

EXTENDED = ("customised.Extending", "--logger-class", "customised.NotingLogger")


def rotate_and_check(server: Server, target: str = "arbiter") -> None:
    """A rotation loses no line and leaves no process with a rotated file."""
    with Load(server.socket, 2, ("async", "thread")) as load:
        load.wait_for_answers(5)
        server.rotate(target=target)
        storm(server, load, rotations=10)
    server.wait_until_reopened(server.reached_by("arbiter"))
    server.logs.expect_exactly_once(load.requests)


@given(boot=st.booleans(), target=targets)
def test_captured_output(
    environment: Environment, servers: Servers, one_worker_class: str, boot: bool, target: str
) -> None:
    """With --capture-output, what the application prints goes to the new error log after a rotation."""
    # The access log goes the same way, by a name that never names a rotated file
    options = ("--capture-output", "--access-logfile", "/dev/stdout")
    with servers.use(one_worker_class, *options, workers=1) as server:
        server.get("print")
        if boot and environment.own_classes:  # uvicorn's patch alone does not look at what is captured then
            with server.booting():
                server.rotate(target=target, create=True)
            server.wait_until_serving()
        else:
            server.rotate(target=target)
        request = server.get("print")
        for what, line in (("printed", f"printed {request}"), ("of the access log", f"GET /print/{request}")):
            expect_in_error_log(server, what, line)
        server.wait_until_reopened(server.workers())


def expect_in_error_log(server: Server, what: str, line: str) -> None:
    def wrong() -> str:
        found = sum(line in other for other in server.logs.lines("error.log", current_only=True))
        return "" if found == 1 else f"the new error.log has {found} of 1 line {what}"

    server.logs.settling.until(lambda: not wrong(), wrong, MISSES)


def test_root_logger(environment: Environment, worker_class: str) -> None:
    """A file of the root logger (logging.basicConfig) is reopened like the others, and loses no line."""
    with Server(environment.python, worker_class, 1, variables={"ROOT_LOG": "logs/root.log"}) as server:
        logs = [*NAMES, "root.log"]
        requests = [server.get()]
        for _ in range(3):
            server.rotate(logs)
            requests.append(server.get())
            server.logs.expect_in_new_files(requests[-1:], ["root.log"])
        server.logs.expect_exactly_once(requests, logs)


def test_own_files(environment: Environment, one_worker_class: str) -> None:
    """A rotation leaves a file alone that the application has put in the place of sys.stdout or of a log."""
    handler = Handler(("Elsewhere",), encoding="utf-8")
    variables = {"ON_LOAD": "sys.stdout = open('output', 'a', buffering=1)", **Case((handler,)).variables}
    server = Server(environment.python, one_worker_class, 1, ["--capture-output"], variables)
    server.logs.path("drawn-0.log").touch()
    with server:
        request = server.get("print")
        for name, line in (("output", f"printed {request}"), (f"logs/{handler.log(0)}", request)):
            found = (server.directory / name).read_text(errors="replace").count(line)
            expect(found == 1, f"a file of the application's own has {count(found, 'line')} of a request, not 1", LOSES)


def test_preloaded(environment: Environment, one_worker_class: str) -> None:
    """With --preload, a worker that starts reopens what was rotated, and empties no log of mode "w"."""
    with Server(environment.python, one_worker_class, 1, ["--preload"], {"APPLICATION_LOG_MODE": "w"}) as server:
        requests = [server.get()]
        server.logs.expect_exactly_once(requests)  # Before its worker is killed
        for rotated in ((), NAMES):
            with server.booting() as worker:
                server.logs.rotate(rotated, create=True)
                server.signal("workers")
            requests.append(server.get())
            server.logs.expect_let_go([worker], "after it had booted")
            server.logs.expect_exactly_once(requests)


def test_unreachable_log(environment: Environment, one_worker_class: str) -> None:
    """While a worker starts, a log that cannot be reopened does not keep it from reopening the others."""
    with Server(environment.python, one_worker_class, 1, ["--preload"]) as server:
        access = server.logs.path("access.log")
        with server.booting() as worker:
            server.logs.rotate()
            for name in NAMES:
                server.logs.path(name).touch() if name != access.name else access.mkdir()
            server.signal("workers")
        requests = [server.get()]
        others = [log for log in server.logs.rotated() if not log.name.startswith(access.name)]
        held = server.logs.held([worker], others)
        expect(not held, f"a worker wrote to {len(held)} rotated files because of one that it could not reopen", MISSES)
        access.rmdir()
        server.signal("arbiter")
        server.wait_until_reopened(server.pids("all"))
        server.expect_same_workers([worker], "because of a log that cannot be reopened")
        server.logs.expect_exactly_once([*requests, server.get()])


def expect_gunicorns_patch(environment: Environment) -> None:
    if not environment.own_classes:
        pytest.skip("uvicorn's patch alone leaves this to Gunicorn, which does it as published")


def test_extended_handler(environment: Environment, servers: Servers, one_worker_class: str) -> None:
    """A subclass of the worker that extends handle_usr1(), and a logger class, are still called."""
    expect_gunicorns_patch(environment)
    with servers.use(*EXTENDED, workers=1, variables={"WORKER_CLASS": one_worker_class}) as server:
        handled, reopened = server.times("handled"), server.times("reopened")
        rotate_and_check(server)
        expect(server.times("handled") > handled, "the subclass's handle_usr1 was not called", MISSES)
        expect(server.times("reopened") > reopened, "the logger class's reopen_files was not called", MISSES)
        audit = (server.control / "audit").read_text()
        expect(f"reopened by {server.workers()[0]}\n" in audit, "the logger class lost a file of its own", LOSES)


@pytest.mark.parametrize("fix", ["AsReported", "Unreset", "Removed", "Resetting"])
def test_own_fix(environment: Environment, one_worker_class: str, fix: str) -> None:
    """A subclass of the worker with a fix of its own, such as that of the bug report, loses no line."""
    with Server(environment.python, f"customised.{fix}", 1, variables={"WORKER_CLASS": one_worker_class}) as server:
        before = server.stderr()
        rotate_and_check(server, "workers")
        server.expect_silence(before, "under a subclass with a fix of its own")


def test_replaced_reopening(environment: Environment, worker_class: str) -> None:
    """What an application puts in the place of Gunicorn's Logger.reopen_files() is called, and breaks nothing."""
    with Server(environment.python, worker_class, 1, variables={"HABIT": "replace_reopen_files"}) as server:
        before = server.stderr()
        server.signal("worker")
        wait.until(lambda: server.times("noted"), lambda: "what replaces reopen_files() was not called", harm=CHANGES)
        server.get()
        server.expect_silence(before, "where reopen_files() was replaced")


def expect_uvicorns_patch(environment: Environment, worker_class: str) -> None:
    if is_own(worker_class) or environment.is_published(worker_class):
        # Gunicorn's own classes are done with signals before the application is loaded.
        pytest.skip("only uvicorn's patch takes the signal over again, as uvicorn does with other signals")


def test_ignored_signal(environment: Environment, one_worker_class: str) -> None:
    """If the application ignores SIGUSR1 while it loads, the logs are reopened all the same."""
    expect_uvicorns_patch(environment, one_worker_class)
    with Server(environment.python, one_worker_class, 1, variables={"ON_USR1": "ignore"}) as server:
        rotate_and_check(server)


def test_reset_signal(environment: Environment, one_worker_class: str) -> None:
    """If the application resets SIGUSR1 to SIG_DFL while it loads, the signal still kills no worker."""
    expect_uvicorns_patch(environment, one_worker_class)
    with Server(environment.python, one_worker_class, 1, variables={"ON_USR1": "reset"}) as server:
        workers = server.workers()
        server.rotate()
        server.get()
        server.expect_same_workers(workers, "after the application had reset it to SIG_DFL")
        rotate_and_check(server)


def test_own_handler(environment: Environment, one_worker_class: str) -> None:
    """If the application sets its own handler for SIGUSR1 while it loads, that handler stays."""
    with Server(environment.python, one_worker_class, 1, variables={"ON_USR1": "note"}) as server:
        server.signal("worker")
        wait.until(lambda: server.times("noted"), lambda: "the application's own handler was not called", harm=CHANGES)


def test_own_server(environment: Environment, one_worker_class: str) -> None:
    """A subclass of the worker that runs uvicorn's own Server reopens its logs."""
    if not environment.has_serve:
        pytest.skip("workers of this release have no _serve() to override")
    variables = {"WORKER_CLASS": one_worker_class}
    with Server(environment.python, "customised.ServingItself", 1, variables=variables) as server:
        rotate_and_check(server)


def test_hook_log(environment: Environment, one_worker_class: str) -> None:
    """A log that post_fork opens, and that is rotated while the worker starts, is reopened."""
    path = "logs/hook.log"
    with Server(environment.python, one_worker_class, 1, variables={"HOOK_LOG": path}) as server:
        for create in (True, False):
            with server.booting() as worker:
                server.logs.rotate(["hook.log"], create)
                server.signal("workers")
            request = server.get()
            server.logs.expect_let_go([worker], "after it had booted")
            server.logs.expect_in_new_files([request], ["hook.log"])


def test_failing_reopening(environment: Environment, servers: Servers, one_worker_class: str) -> None:
    """If a log cannot be reopened, the worker reports it, goes on writing to it, and reopens the others."""
    with servers.use(one_worker_class, workers=1) as server:
        [worker], log = server.workers(), server.logs.path("application.log")
        server.logs.rotate()
        log.mkdir()
        server.signal("workers")
        server.reopening.until(
            lambda: any("Is a directory" in line for line in [server.stderr(), *server.logs.lines("error.log")]),
            lambda: f"nothing was said of a log that could not be reopened {server.reopening} after SIGUSR1",
        )
        others = [file for file in server.logs.rotated() if not file.name.startswith("application.log")]
        server.reopening.until(
            lambda: not server.logs.held([worker], others),
            lambda: f"a log that could not be reopened kept others on their rotated files for {server.reopening}",
        )
        requests = [server.get() for _ in range(5)]
        log.rmdir()
        server.logs.expect_exactly_once(requests)
        server.signal("workers")
        server.wait_until_reopened(server.workers())
        server.expect_same_workers([worker], "because of a log that could not be reopened")
        server.logs.expect_exactly_once([*requests, server.get()])


def test_system_calls(servers: Servers, one_worker_class: str) -> None:
    """SIGUSR1 interrupts no system call of C code."""
    with servers.use(*EXTENDED, workers=1, variables={"WORKER_CLASS": one_worker_class}) as server:
        [worker], interrupted = server.workers(), server.times("interrupted")

        def waits() -> bool:
            """Whether the worker waits in read(2), or is past it."""
            try:
                calls = Path(f"/proc/{worker}/syscall").read_text()
            except OSError:  # It has ended
                return True
            return calls.split()[0] == "0" or server.times("interrupted") > interrupted

        late = f"the application did not come to call read(2) within {wait.PATIENCE:g} s"
        with doing(server, ["reading"]) as activities:
            wait.until(waits, lambda: late)
            server.signal("worker", times=5)
            wait.until(waits, lambda: late)
            activities.finish().expect_lossless("while C code waited in a system call")
        expect(server.times("interrupted") == interrupted, "a system call was interrupted by SIGUSR1", BREAKS)


def test_forked_process(environment: Environment, one_worker_class: str) -> None:
    """A process that the application forks reopens its logs on SIGUSR1, whatever it is logging."""
    with Server(environment.python, one_worker_class, 1, ["--capture-output"]) as server:
        quiet = server.stderr()
        with doing(server, ["fork"]) as activities:
            child = activities.running[0].pid
            for _ in range(300):
                server.logs.rotate(create=True)
                send([child], signal.SIGUSR1)
            server.wait_until_reopened([child])
            activities.finish().expect_lossless("by a process that the application forked")
        server.expect_silence(quiet, "written by a process that the application forked")


def may_import(python: Path, *directories: Path) -> bool:
    code = "import os, sys, gunicorn; print(*map(os.listdir, sys.argv[1:]))"
    become = functools.partial(os.setuid, NOBODY)
    command = [str(python), "-I", "-B", "-W", "ignore", "-c", code, *map(str, directories)]
    try:
        return subprocess.call(command, preexec_fn=become, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except PermissionError:  # For the interpreter itself
        return False


def test_unprivileged(environment: Environment, worker_class: str) -> None:
    """With --user, workers that may not create the new log reopen it all the same, and break no request."""
    if os.geteuid() != 0:
        pytest.skip("only root can start Gunicorn with --user")
    expect_gunicorns_patch(environment)
    server = Server(environment.python, worker_class, 1, ["--user", str(NOBODY), "--capture-output"])
    server.let_others_in()
    if not may_import(environment.python, SERVED, server.control):
        server.discard()
        pytest.skip(
            f"the user nobody may not read what a worker needs of {environment.path}, {SERVED} or {server.directory}"
        )
    with server:
        both = ["access.log", "error.log"]
        for names, number in ((both[:1], signal.SIGUSR1), (both, signal.SIGUSR1), (both, signal.SIGHUP)):
            before, ended = [owner(server, name) for name in names], len(server.exits())
            server.logs.rotate(names)
            server.signal("arbiter", number)
            with Load(server.socket, 1, requests_each=1) as load:
                load.wait_for_answers(50)
            expect_unread(server, load.broken, ended)
            server.logs.expect_exactly_once(load.requests, both)
            server.wait_until_reopened(server.pids("all"))
            server.logs.expect_in_new_files([server.get()], names)
            after = [owner(server, name) for name in names]
            expect(after == before, f"a new log has owner, group and mode {after}, not {before}")


def owner(server: Server, name: str) -> Tuple[int, int, str]:
    status = server.logs.path(name).stat()
    return status.st_uid, status.st_gid, oct(status.st_mode)


def expect_unread(server: Server, broken: List[str], ended: int) -> None:
    """A worker that ends, for whatever reason, closes the connection whose request it has not read: uvicorn does."""
    application_log = Path(server.variables["APPLICATION_LOG"]).read_text()
    read = [said for said in broken if re.search(rf"\b{said.partition(':')[0]}\b", application_log)]
    expect(not read, lambda: f"a request was broken under --user: {read[0]}", BREAKS)
    server.reopening.until(
        lambda: len(server.exits()) >= ended + len(broken),
        lambda: f"a request was broken under --user, though no worker ended: {broken[0]}",
        BREAKS,
    )
