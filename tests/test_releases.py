"""Published releases, as the package index has them."""

import shutil
from pathlib import Path

import pytest
from usr1 import wheel
from usr1.refusal import Refusal
from usr1.upkeep import releases


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(releases, "CACHE", tmp_path / "releases")
    return tmp_path / "releases"


def test_published_are_in_order_of_version() -> None:
    published = releases.published("uvicorn-worker")
    assert published[:5] == ["0.0.1", "0.1.0", "0.2.0", "0.3.0", "0.4.0"]
    uvicorn = releases.published("uvicorn")
    assert uvicorn.index("0.9.1") < uvicorn.index("0.13.0") < uvicorn.index("0.24.0") < uvicorn.index("0.24.0.post1")
    assert "0.54.0" in uvicorn, "also what this Python is too old for"


def test_what_is_not_published() -> None:
    with pytest.raises(releases.ReleaseError, match="No matching distribution found for uvicorn-usr1-unpublished"):
        releases.published("uvicorn-usr1-unpublished")


def test_unpacked_is_fetched_once_and_whole(cache: Path) -> None:
    folder = releases.unpacked("uvicorn", "0.54.0")
    assert (folder / "uvicorn" / "workers.py").is_file() and list(folder.glob("*.dist-info/RECORD"))
    assert list(cache.iterdir()) == [folder]
    shutil.rmtree(folder / "uvicorn")
    assert releases.unpacked("uvicorn", "0.54.0") == folder
    assert not (folder / "uvicorn").exists()


def test_unpacked_by_two_at_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, seen = wheel.fetch, []

    def fetch_after_the_other(*arguments: str) -> None:
        seen.append(arguments)
        if len(seen) == 1:
            releases.unpacked("uvicorn", "0.54.0")
        fetch(*arguments)

    monkeypatch.setattr(wheel, "fetch", fetch_after_the_other)
    assert releases.unpacked("uvicorn", "0.54.0").is_dir()
    assert len(seen) == 2 and len(list(cache.iterdir())) == 1


def test_unpacked_where_nothing_can_be_written(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "fetch", lambda *arguments: None)
    with pytest.raises(FileNotFoundError):
        releases.unpacked("uvicorn", "0.54.0")


def test_unpacked_leaves_nothing_of_a_release_that_is_not_there(cache: Path) -> None:
    with pytest.raises(Refusal, match="uvicorn 0.13.99 cannot be fetched"):
        releases.unpacked("uvicorn", "0.13.99")
    assert list(cache.iterdir()) == []


def test_source_is_fetched_once_and_whole(cache: Path) -> None:
    folder = releases.source("uvicorn-worker", "0.4.0")
    assert (folder / "tests" / "test_workers.py").is_file() and (folder / "uvicorn_worker").is_dir()
    assert list(cache.iterdir()) == [folder]
    assert releases.source("uvicorn-worker", "0.4.0") == folder
