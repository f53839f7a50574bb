"""The properties as they are run for people, on their machines."""

from pathlib import Path

import pytest
from properties import run as properties

from test_apply import trees


def test_what_fails_says_why_in_a_few_words() -> None:
    status, output = properties.run(trees.source().path, "--tb=no", "-rN", test="test_boot.py::test_boot")
    assert status == 1
    failed, why, *_, verdict, _ = [line for line in output.splitlines() if line]
    assert failed.startswith("FAILED A signal during post_fork, ")
    assert (
        why == "       1 of 1 processes still wrote to a rotated access.log, error.log after SIGUSR1 during post_fork"
    )
    assert verdict == "1 of 1 promise is broken here: SIGUSR1 misses rotations"


def test_a_long_path_to_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than that of a socket may be; and no socket of another gunicorn's is in danger."""
    for name in ("TMPDIR", "XDG_RUNTIME_DIR"):
        (tmp_path / (name * 16)).mkdir()
        monkeypatch.setenv(name, str(tmp_path / (name * 16)))
    status, output = properties.run(trees.source().path, test="test_serving.py::test_promptness")
    assert status == 0, output
    assert [list(directory.iterdir()) for directory in tmp_path.iterdir()] == [[], []]
