"""properties/cases.py: what the comparison leaves out, as chance decides it, and nothing more."""

import pytest
from properties import cases
from properties.cases import Case, Found, Handler, Round

FINE = {what: 0.0 for what in (cases.DIED, cases.ENDING, *cases.HARM, cases.NOTED)}
CLOSED, DEPLETES = Case(rounds=(Round(how="closed"),)), Case(rounds=(Round("deplete"),))

#: What is not compared in a case if something has happened to the published server.
LEFT_OUT = [
    (cases.BROKEN, Case((Handler(("Lazy", "Emitting")),)), cases.BROKEN),
    (cases.BROKEN, Case((Handler(mode="x", place="loggers"),)), cases.BROKEN),
    (cases.BROKEN, Case((Handler(("Header",)),), CLOSED.rounds), cases.BROKEN),
    (cases.BROKEN, Case((Handler(encoding="utf-16"),), CLOSED.rounds), cases.BROKEN),
    (cases.ENDING, Case((Handler(mode="x"),), options=cases.PRELOAD), cases.DIED),
    (cases.DIED, Case(on_usr1="reset"), cases.DIED),
    (cases.BROKEN, Case(rounds=(Round("starve"),)), cases.DIED),
    (cases.SLOW, Case(), cases.BROKEN),
    (cases.TRACEBACKS, CLOSED, cases.TRACEBACKS),
    (cases.NOTED, CLOSED, cases.NOTED),
    (cases.LATE, DEPLETES, cases.LATE),
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


def test_lines_that_are_in_a_rotated_file() -> None:
    held = Found(FINE, {}, {}, [{(False, "drawn-0.log")}])
    emptied, left = Case((Handler(mode="w"),), (cases.HUP,)), Case((Handler(mode="w", encoding="utf-8-sig"),))
    for case in (emptied, left, Case(rounds=(Round(how="deleted"),))):
        assert not cases.are_lines_comparable(cases.LOST, "drawn-0.log", case, held)
    for case in (Case((Handler(mode="w"),)), Case((Handler(),), (cases.HUP,))):
        assert cases.are_lines_comparable(cases.LOST, "drawn-0.log", case, held)
    assert not cases.are_lines_comparable(cases.MISSED, "error.log", DEPLETES, held)
    assert cases.are_lines_comparable(cases.LOST, "error.log", DEPLETES, held)


def test_files_that_are_not_compared() -> None:
    fine = Found(FINE, {"drawn-0.log": {cases.LOST: 0}}, {}, [])
    lost, held = fine._replace(lines={"drawn-0.log": {cases.LOST: 1}}), fine._replace(held=[{(False, "drawn-0.log")}])
    broken = fine._replace(bad={**FINE, cases.BROKEN: 1})
    for case, published in ((CLOSED, fine), (DEPLETES, fine), (Case(), broken), (Case(), lost), (Case(), held)):
        assert not cases.are_files_comparable("drawn-0.log", case, published)
    assert cases.are_files_comparable("drawn-0.log", Case(), fine)
