"""
Environments as broken as Hypothesis makes them: fully done, or byte-identical to before.

The exit status tells the truth, and nothing outside the files of uvicorn changes.
"""

import contextlib
import functools
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Callable, Dict, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from usr1 import patches, record
from usr1.apply import apply
from usr1.apply.environment import Environment
from usr1.apply.installed import UNFINISHED, State

from test_apply import trees
from test_apply.trees import Run


class Files:
    """Those of uvicorn in an environment, some of which may be gone already."""

    def __init__(self, environment: Environment) -> None:
        self.source = trees.workers(environment)
        self.info = sorted(environment.site_packages.glob("uvicorn-*.dist-info"))[0]
        self.record = self.info / "RECORD"
        self.metadata = self.info / "METADATA"


Damage = Callable[[Files], object]


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def patch_by_hand(files: Files) -> None:
    """As patch(1) would, or a run of this that was killed."""
    [part] = trees.newest_patch().parts
    if patches.sha256(files.source.read_bytes()) == part.pristine_sha256:
        edit(files.source, part.apply)


def patch_record(files: Files) -> None:
    [part] = trees.newest_patch().parts
    digest = record.digest(part.patched_sha256)
    edit(files.record, lambda text: re.sub(rb"(?<=workers\.py,)sha256=[^,]*", digest.encode(), text))


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


LINE = rb'(?m)^"?uvicorn/workers\.py"?,.*\n'


def line(change: Callable[["re.Match[bytes]"], bytes]) -> Callable[[Files], object]:
    """Change the one line of RECORD."""
    return lambda files: edit(files.record, lambda text: re.sub(LINE, change, text))


def version(text: bytes) -> Callable[[Files], object]:
    return lambda files: edit(files.metadata, lambda old: re.sub(rb"(?m)^Version: .*", b"Version: " + text, old))


DAMAGES: Dict[str, Damage] = {
    "source missing": lambda files: files.source.unlink(),
    "source empty": lambda files: files.source.write_bytes(b""),
    "source truncated": lambda files: edit(files.source, lambda text: text[: len(text) // 2]),
    "source with CRLF": lambda files: edit(files.source, lambda text: text.replace(b"\n", b"\r\n")),
    "source in UTF-16": lambda files: edit(files.source, lambda text: text.decode("latin-1").encode("utf-16")),
    "source in no encoding": lambda files: edit(files.source, lambda text: text + b"# \xff\n"),
    "source a directory": lambda files: make_directory(files.source),
    "source a link": lambda files: files.source.symlink_to(files.source.rename(files.source.with_name("w.py"))),
    "source read-only": lambda files: files.source.chmod(0o400),
    "source patched by hand": patch_by_hand,
    "RECORD says patched": patch_record,
    "RECORD missing": lambda files: files.record.unlink(),
    "RECORD empty": lambda files: files.record.write_bytes(b""),
    "RECORD with CRLF": lambda files: edit(files.record, lambda text: text.replace(b"\n", b"\r\n")),
    "RECORD a directory": lambda files: make_directory(files.record),
    "RECORD without the line": line(lambda match: b""),
    "RECORD with the line twice": line(lambda match: match[0] * 2),
    "RECORD with more lines": line(lambda match: b"../other,sha256=x,1\n\xff,,\n" + match[0] + b"\n,,\n"),
    "RECORD without hashes": line(lambda match: b"uvicorn/workers.py,,\n"),
    "RECORD without the size": line(lambda match: re.sub(rb",\d+", b",", match[0])),
    "RECORD with quotes": line(lambda match: match[0].replace(b"uvicorn/workers.py", b'"uvicorn/workers.py"')),
    "RECORD with another hash": line(lambda match: match[0].replace(b"sha256=", b"sha256=x")),
    "METADATA missing": lambda files: files.metadata.unlink(),
    "METADATA without a version": lambda files: files.metadata.write_bytes(b"\xff"),
    "another version": version(b"0.54.0.post1"),
    "a version that is none": version(b"\xff??"),
    "a fork's version": version(b"0.54.0+usr1.1"),
    "two dist-infos": lambda files: shutil.copytree(files.info, files.info.with_name("uvicorn-0.1.dist-info")),
    "no dist-info": lambda files: shutil.rmtree(files.info),
    "bytecode missing": lambda files: shutil.rmtree(files.source.with_name("__pycache__")),
    "source left behind": lambda files: files.source.with_name(f".workers.py.x{UNFINISHED}").touch(),
    "RECORD left behind": lambda files: (files.info / f".RECORD.x{UNFINISHED}").touch(),
    "editable": lambda files: (files.info / "direct_url.json").write_text('{"dir_info": {"editable": true}}'),
    "archive": lambda files: (files.info / "direct_url.json").write_text("{"),
}


@pytest.fixture(autouse=True)
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "catalogue", functools.lru_cache(patches.catalogue))


def check_truth(option: str, environment: Environment) -> None:
    """One run: fully done or byte-identical to before."""
    before = trees.snapshot(environment.path, compiled=True)
    status = apply.main([option, "--only", "uvicorn", str(environment.path)])
    now = trees.snapshot(environment.path, compiled=True)
    if status == 2:
        assert now == before
        return
    assert status == 0
    differing = {name for name in {*before, *now} if before.get(name) != now.get(name)}
    for name in differing:
        assert re.search(rf"/uvicorn/(__pycache__/)?workers\.|/RECORD$|\.x{re.escape(UNFINISHED)}$", name), name
    assert not [name for name in now if name.endswith(UNFINISHED)]
    one = trees.only(environment)
    assert one.finished
    assert one.state in ((State.PATCHED, State.FORK) if option == "--no-tests" else (State.PRISTINE,))
    assert trees.bytecode(environment, one) == [] or not differing
    # Only that line of RECORD is another, and it is true
    name = os.fspath(one.record.relative_to(environment.path))
    others = [re.sub(LINE, b"", content) for content in (before[name][-1], now[name][-1]) if isinstance(content, bytes)]
    assert others[0] == others[1]
    assert not [wrong for wrong in trees.disagreements(environment) if "uvicorn/workers.py" in wrong]


@pytest.mark.parametrize("name", DAMAGES)
def test_one_damage(name: str, environment: Environment) -> None:
    before = trees.snapshot(environment.path, compiled=True)
    DAMAGES[name](Files(environment))
    assert trees.snapshot(environment.path, compiled=True) != before
    check_truth("--no-tests", environment)


OPTIONS = st.lists(st.sampled_from(["--no-tests", "--revert"]), min_size=1, max_size=3)


def test_several_damages(request: pytest.FixtureRequest, run: Run) -> None:
    @settings(max_examples=2000 if request.config.getoption("--full") else 30, deadline=None)
    @given(st.booleans(), st.lists(st.sampled_from(sorted(DAMAGES)), min_size=2, max_size=4), OPTIONS)
    def check(patched: bool, names: List[str], options: List[str]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            environment = trees.light(Path(directory, "venv"), trees.source(), bytecode=True)
            if patched:
                run("--no-tests", "--only", "uvicorn", environment)
            for name in names:
                # One before may have removed what it is to damage
                with contextlib.suppress(OSError, IndexError):
                    DAMAGES[name](Files(environment))
            before = trees.snapshot(environment.path, compiled=True)
            assert apply.main(["--check", str(environment.path)]) in (0, 1)
            assert trees.snapshot(environment.path, compiled=True) == before
            for option in options:
                check_truth(option, environment)

    check()
