"""The properties as they are run for people, on their machines."""

import shutil
from pathlib import Path
from typing import NamedTuple, Set

import pytest
from properties import promises
from properties import run as properties
from properties.environment import is_patched
from properties.expect import MEANINGS, MISSES
from usr1.apply import apply, proof
from usr1.apply.environment import Environment

from test_apply import trees


def test_what_fails_says_why_in_a_few_words() -> None:
    status, output = properties.run(trees.source().path, "--tb=no", "-rN", test="test_boot.py::test_boot")
    assert status == 1
    failed, why, means, *_, kind, verdict, _ = [line for line in output.splitlines() if line]
    assert failed.startswith("FAILED A worker that is still starting when the logs are rotated ")
    assert (
        why == "       1 of 1 processes still wrote to a rotated access.log, error.log after SIGUSR1 during post_fork"
    )
    assert means == f"       {MEANINGS[MISSES]}"
    assert kind == "starting                    0/1  1 broken"
    assert verdict == "1 of 1 promise is broken here: a rotation at a bad moment does not reopen log files"


def test_a_long_path_to_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than that of a socket may be; and no socket of another gunicorn's is in danger."""
    for name in ("TMPDIR", "XDG_RUNTIME_DIR"):
        (tmp_path / (name * 16)).mkdir()
        monkeypatch.setenv(name, str(tmp_path / (name * 16)))
    status, output = properties.run(trees.source().path, test="test_serving.py::test_promptness")
    assert status == 0, output
    assert [list(directory.iterdir()) for directory in tmp_path.iterdir()] == [[], []]


def collected(environment: Path) -> Set[str]:
    """The promises that are tested there, each once."""
    status, output = properties.run(environment, "--collect-only")
    assert status == 0, output
    return {line.partition("[")[0] for line in output.splitlines() if "::" in line}


def test_there_are_as_many_before_and_after(tmp_path: Path) -> None:
    """Each has its kind, and none is there for nothing: as pytest has it where there is nothing to be tested with."""
    pristine, patched = tmp_path / "pristine", tmp_path / "patched"
    for path in (pristine, patched):
        shutil.copytree(trees.source().path, path, symlinks=True)
    assert apply.main(["--no-tests", str(patched)]) == 0
    found = collected(pristine)
    assert found == collected(patched) and len(found) > 30
    assert {promises.kind(name) for name in found} == set(promises.KINDS.values())
    assert "NOTSET" not in properties.run(pristine, "--collect-only")[1]


def test_a_set_up_that_fails_breaks_no_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The patch stays. What fails in a test itself, or breaks a promise, is another thing."""
    environment, root = trees.source(), tmp_path / "root"
    shutil.copytree(proof.ROOT, root, ignore=shutil.ignore_patterns(".*", "test_*"))
    monkeypatch.setattr(proof, "ROOT", root)
    for raised, kept in (("ValueError('odd')", True), ("Broken('odd')", False)):
        (root / "tests" / "properties" / "test_boot.py").write_text(FAILING.format(raised))
        assert proof.run_checks(environment) == kept
        said = capsys.readouterr().out
        assert ("UNTESTED It starts.\n       this could not be tested to its end, for ValueError: " in said) == kept
    verdict = "1 of 2 promises is broken here: a rotation at a bad moment changes what is not its business\n"
    assert said.endswith(verdict)


FAILING = """
import pytest
from properties.expect import Broken

@pytest.fixture
def odd():
    raise {}

def test_boot(odd):
    \"\"\"It starts.\"\"\"

def test_other():
    \"\"\"It goes on.\"\"\"
"""


def test_pypy_s_packages_are_found(environment: Environment) -> None:
    """In lib/pypy3.9, say."""
    assert apply.main(["--no-tests", str(environment.path)]) == 0
    library = environment.site_packages.parent
    library.rename(library.with_name(library.name.replace("python", "pypy")))
    assert is_patched(environment.path, "gunicorn")


class Report(NamedTuple):
    nodeid: str
    harm: str = ""
    sentence: str = "It works."


def test_what_is_kept_is_kept_under_every_worker_class() -> None:
    place = "tests/properties"
    stats = {
        "passed": [Report(f"{place}/test_boot.py::test_boot[one]"), Report(f"{place}/test_exit.py::test_way_out[one]")],
        "failed": [
            Report(f"{place}/test_exit.py::test_way_out[other]", "kills workers"),
            Report(f"{place}/test_worse.py::test_drawn[one]", "loses lines"),
        ],
        "untested": [Report(f"{place}/test_dispositions.py::test_others")],
        "skipped": [
            Report(f"{place}/test_boot.py::test_boot[other]"),
            Report(f"{place}/test_customised.py::test_system_calls[one]"),
        ],
        "": [Report(f"{place}/test_boot.py::test_boot[one]")],
    }
    assert promises.summary(stats) == [
        "starting                    1/1",
        "serving                     0/1  1 not tested here",
        "stopping                    0/1  1 broken",
        "other signals               0/1  1 not tested here",
        "no worse than unpatched     0/1  1 broken",
        "2 of 5 promises are broken here: a rotation at a bad moment kills workers and loses lines "
        "(2 others could not be tested)",
    ]
    assert promises.summary({"passed": stats["passed"][:1]})[-1] == "1 of 1 promise holds here"
    assert promises.summary({"passed": stats["passed"], "skipped": stats["skipped"]})[-1] == (
        "2 of 3 promises hold here (1 other could not be tested)"
    )
    assert promises.summary({"skipped": stats["skipped"]})[-1] == "no promise was tested here"
