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
    published, fine = Found({**FINE, happened: 1}, {}, {}, []), Found(FINE, {}, {}, [])
    assert not cases.is_comparable(what, case, published)
    assert cases.is_comparable(what, case, fine) != (what in (cases.NOTED, cases.LATE)), "for which the case decides"
    assert cases.is_comparable(what, Case(), fine)
    assert cases.is_comparable(what, Case(), published) or what == cases.SLOW, "which a failed server never is"


def test_lines_of_a_server_that_died_or_broke_a_request() -> None:
    died, broke = (Found({**FINE, what: 1}, {}, {}, []) for what in (cases.DIED, cases.BROKEN))
    deleted, user = Case(rounds=(Round(how="deleted"),)), Case(options=cases.USER)
    left_out = [
        (cases.LOST, Case(), died, "drawn-0.log"),
        (cases.DOUBLED, user, died, "error.log"),
        (cases.LOST, deleted, died, "error.log"),
        (cases.LOST, Case((Handler(("Lazy", "Emitting")),)), broke, "drawn-0.log"),
    ]
    compared = [(cases.LOST, Case(), died, "error.log"), (cases.DOUBLED, deleted, died, "error.log")]
    compared += [(cases.LOST, Case(), broke, "drawn-0.log"), (cases.LOST, left_out[-1][1], broke, "error.log")]
    compared += [(what, case, Found(FINE, {}, {}, []), log) for what, case, _, log in left_out]
    assert not any(cases.is_comparable(*one) for one in left_out)
    assert all(cases.is_comparable(*one) for one in compared)


def test_lines_that_are_in_a_rotated_file() -> None:
    held = Found(FINE, {}, {}, [{(False, "drawn-0.log")}])
    emptied, left = Case((Handler(mode="w"),), (cases.HUP,)), Case((Handler(mode="w", encoding="utf-8-sig"),))
    for case in (emptied, left, Case(rounds=(Round(how="deleted"),))):
        assert not cases.is_comparable(cases.LOST, case, held, "drawn-0.log")
    for case in (Case((Handler(mode="w"),)), Case((Handler(),), (cases.HUP,))):
        assert cases.is_comparable(cases.LOST, case, held, "drawn-0.log")
    assert not cases.is_comparable(cases.MISSED, DEPLETES, held, "error.log")
    assert cases.is_comparable(cases.LOST, DEPLETES, held, "error.log")


def test_files_that_are_not_compared() -> None:
    fine = Found(FINE, {"drawn-0.log": {cases.LOST: 0}}, {}, [])
    lost, held = fine._replace(lines={"drawn-0.log": {cases.LOST: 1}}), fine._replace(held=[{(False, "drawn-0.log")}])
    broken = fine._replace(bad={**FINE, cases.BROKEN: 1})
    alone = CLOSED, DEPLETES, Case((Handler(("Header",)),), (cases.HUP,))
    for case, published in [*((one, fine) for one in alone), *((Case(), one) for one in (broken, lost, held))]:
        assert not cases.is_comparable(cases.FILES, case, published, "drawn-0.log")
    assert cases.is_comparable(cases.FILES, Case(), fine, "drawn-0.log")
