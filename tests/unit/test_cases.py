"""properties/cases.py: what the comparison leaves out, as chance decides it, and nothing more."""

import pytest
from properties import cases
from properties.cases import Case, Found, Handler, Round

FINE = {what: 0.0 for what in (cases.DIED, cases.ENDING, *cases.HARM, cases.NOTED)}
CLOSED = Case(rounds=(Round(how="closed"),))

#: What is not compared in a case if something has happened to the published server.
LEFT_OUT = [
    (cases.BROKEN, Case((Handler(("Lazy", "Emitting")),)), cases.BROKEN),
    (cases.DIED, Case(on_usr1="reset"), cases.DIED),
    (cases.BROKEN, Case(rounds=(Round("starve"),)), cases.DIED),
    (cases.SLOW, Case(), cases.BROKEN),
    (cases.TRACEBACKS, CLOSED, cases.TRACEBACKS),
    (cases.NOTED, CLOSED, cases.NOTED),
    (cases.LATE, Case(rounds=(Round("deplete"),)), cases.LATE),
]


@pytest.mark.parametrize("what, case, happened", LEFT_OUT)
def test_only_what_chance_decides_is_left_out(what: str, case: Case, happened: str) -> None:
    published = Found({**FINE, happened: 1}, {}, {}, [])
    assert not cases.is_comparable(what, case, published)
    assert cases.is_comparable(what, Case(), Found(FINE, {}, {}, []))
    assert cases.is_comparable(what, Case(), published) or what == cases.SLOW, "which a failed server never is"


def test_lines_of_a_server_that_died() -> None:
    died = Found({**FINE, cases.DIED: 1}, {}, {}, [])
    deleted, user = Case(rounds=(Round(how="deleted"),)), Case(options=cases.USER)
    left_out = [
        (cases.LOST, "drawn-0.log", Case()),
        (cases.DOUBLED, "error.log", user),
        (cases.LOST, "error.log", deleted),
    ]
    compared = [(cases.LOST, "error.log", Case()), (cases.DOUBLED, "error.log", deleted)]
    assert not any(cases.are_lines_comparable(*one, died) for one in left_out)
    assert all(cases.are_lines_comparable(*one, died) for one in compared)
