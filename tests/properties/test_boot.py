"""While a worker boots."""

import signal

from hypothesis import assume, example, given
from hypothesis import strategies as st

from properties.clients import Client, new_request
from properties.conftest import Servers
from properties.logs import NAMES
from properties.schedules import bursts

places = st.sampled_from(["post_fork", "load", "lifespan", "blocking-lifespan"])


@example(place="post_fork", target="workers", times=1, create=True)
@given(place=places, target=st.sampled_from(["workers", "all"]), times=bursts, create=st.booleans())
def test_boot(servers: Servers, worker_class: str, place: str, target: str, times: int, create: bool) -> None:
    """A signal during post_fork, application load or lifespan startup is honoured before the first request."""
    # Before init_signals the signal itself is lost: what tells the worker is that there is a new file.
    assume(place != "post_fork" or create or target == "all")
    with servers.use(worker_class, workers=1) as server:
        with server.hold(place) as hold:
            server.signal("workers", signal.SIGKILL)
            worker = hold.reached()
            server.logs.rotate(create=create)
            server.signal(target, times=times)
            server.wait_until_reopened([server.arbiter] if target == "all" else [])
            client, request = Client(server.socket), new_request()
            client.send("async", request)  # Before the worker listens, so that none can be earlier
        with client:
            client.answer()
        assert server.workers() == [worker], f"SIGUSR1 during boot was fatal: {server.deaths()}"
        held = server.logs.held([worker], server.logs.rotated())
        assert not held, f"SIGUSR1 during {place} was missed: {held}"
        for name in NAMES:
            assert server.logs.requests(name, current_only=True)[request] == 1
        for line in (f"boot-load {worker}", f"boot-lifespan {worker}"):
            for name in ("error.log", "application.log"):
                assert sum(line in found for found in server.logs.lines(name)) == 1
