"""While a worker boots."""

import contextlib
import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from properties.clients import Client, new_request
from properties.conftest import Servers
from properties.environment import is_wsgi
from properties.expect import LOSES, count, expect
from properties.schedules import bursts

places = st.sampled_from(["post_fork", "load", "lifespan", "blocking-lifespan"])


@example(place="post_fork", target="workers", times=1, create=True)
@given(place=places, target=st.sampled_from(["workers", "all"]), times=bursts, create=st.booleans())
def test_boot(servers: Servers, worker_class: str, place: str, target: str, times: int, create: bool) -> None:
    """A worker that is still starting when the logs are rotated reopens them before its first request."""
    if is_wsgi(worker_class) and "lifespan" in place:
        place = "load"  # It has no lifespan
    with servers.use(worker_class, workers=1) as server, contextlib.ExitStack() as stack:
        loading = stack.enter_context(server.hold("load")) if place == "post_fork" else None
        with server.booting(place) as worker:
            server.logs.rotate(create=create)
            server.signal(target, times=times)
            server.wait_until_reopened([server.arbiter] if target == "all" else [])
            client, request = stack.enter_context(Client(server.socket)), new_request()
            client.send("async", request)  # Before the worker listens, so that none can be earlier
        if loading:
            loading.reached()
            server.logs.expect_let_go([worker], f"after SIGUSR1 during {place}")
            loading.release()
        client.answer()
        server.expect_same_workers([worker], f"during {place}")
        server.logs.expect_let_go([worker], f"after SIGUSR1 during {place}")
        server.logs.expect_in_new_files([request])
        stages = ["load"] if is_wsgi(worker_class) else ["load", "lifespan"]
        for what, name in itertools.product(stages, ("error.log", "application.log")):
            lines = sum(f"boot-{what} {worker}" in line for line in server.logs.lines(name))
            expect(lines == 1, f"{name} has {count(lines, 'line')} of the application's one during {what}", LOSES)
