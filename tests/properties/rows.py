"""What an earlier revision of the patches was worse in than the published servers."""

from typing import Any, Dict, Tuple

from properties.cases import ENDED, HUP, KILL, OTHERS, PRELOAD, USER, Case, Handler, Round
from properties.server import SERVED

CONFIGURED = ("--log-config", str(SERVED / "logging.conf"), "--access-logfile", "-", "--error-logfile", "-")


def each(
    *owns: Tuple[str, ...], places: Tuple[str, ...] = ("logger", "root", "nowhere"), **what: Any
) -> Tuple[Handler, ...]:
    return tuple(Handler(own, place=place, **what) for own in owns for place in places)


ROWS: Dict[str, Case] = {
    "workers that may not enter the folder": Case((), (HUP,), USER, folder=0o750),
    "workers that may not create what logconfig names": Case((), (Round(), Round()), (*USER, *CONFIGURED)),
    "deep recursion": Case((), (Round("recurse"), Round())),
    "an exception of another signal's handler": Case((), (Round("limit_time"), Round())),
    "an OSError of another signal's handler": Case((), (Round("limit_time_by_number"), Round())),
    "a thread that has a log's lock": Case((Handler(place="unused"),), (Round("hold_locks", OTHERS),)),
    "a handler that is being made": Case((), (Round("make_handlers"), Round())),
    "one while the application loads": Case((), (HUP,), habit="make_handlers"),
    "one whose class has a stream": Case((), (Round("make_handlers_of_a_class_with_a_stream"), Round())),
    "no thread can be started": Case(
        (Handler(delay=True),), (Round("starve"), Round("hold_first_line"), Round(how="closed"))
    ),
    "no descriptor left": Case((), (Round("deplete"), Round())),
    "mode w, another log rotated": Case(each((), mode="w"), (KILL, Round(rotated=OTHERS)), PRELOAD),
    "mode w, renamed without a signal": Case(each((), mode="w"), (ENDED, KILL), PRELOAD),
    "mode x": Case(each((), mode="x"), (Round(), Round(rotated=OTHERS), Round())),
    "an _open() that writes a header": Case(each(("Header",)), (Round(), Round(rotated=OTHERS))),
    "an _open() that makes a name": Case(each(("Named",)), (Round(), Round(rotated=OTHERS))),
    "an _open() that does not": Case(each(("Lazy",)), (Round(rotated=OTHERS), Round()), PRELOAD),
    "a rotated file made read-only": Case((Handler(),), (Round(how="read-only"), HUP, Round())),
    "a reload, and a handler of SIGUSR1": Case((), (HUP, Round()), on_usr1="note"),
    "a reload, and SIG_DFL": Case((), (HUP, HUP), on_usr1="reset"),
    "threads and programs started in fork hooks": Case((), (HUP,), PRELOAD, habit="start_threads_in_children"),
    "a deleted file that no logger has": Case((Handler(place="removed"), Handler()), (Round(how="deleted"), Round())),
    "own locks, preloaded": Case(each(("Locked",), ("Shared",)), (Round(), KILL, Round()), PRELOAD),
    "a signal in an own emit()": Case(each(("Interrupted",)), (Round(), Round(rotated=OTHERS))),
    "a stream that was given": Case(each(("Elsewhere",)), (Round(), Round(rotated=OTHERS))),
    "own streams": Case(each(("Streaming",), places=("root", "nowhere")), (Round(), KILL, Round()), PRELOAD),
    "own comparisons": Case(each(("Equal",), ("Incomparable",)), (Round(), Round())),
}
