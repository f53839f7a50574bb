"""
The series for upstream's maintainers: patches/upstream/<distribution>/, for `git am`.

The code is that of the newest patch, in two commits; tests, documentation and messages are in
scripts/upstream/. Written with difflib, so that the same input gives the same bytes with any git.
"""

import difflib
import re
import sys
from pathlib import Path
from string import Template
from typing import Dict, List, NamedTuple

from packaging.version import Version

from usr1 import patches, releases
from usr1.patches import PatchError
from usr1.releases import ReleaseError

SOURCES = Path(__file__).resolve().parents[1] / "upstream"
AUTHOR = "uvicorn-usr1 <uvicorn-usr1@users.invalid>"
DATE = "Mon, 23 Nov 2026 12:00:00 +0000"
TESTS = "tests/test_workers.py"


class Project(NamedTuple):
    worker: str
    documentation: str
    harness: Dict[str, str]  # Files that the tests need more in, and how the line after it starts; "" is the end


PROJECTS = {
    "uvicorn": Project(
        "uvicorn.workers.UvicornWorker", "docs/deployment/log-rotation.md", {TESTS: "", "pyproject.toml": '    "a2wsgi'}
    ),
    "uvicorn-worker": Project("uvicorn_worker.UvicornWorker", "docs/docs/logging.md", {TESTS: "import signal"}),
}

#: What the second commit adds to the code: the first one does without.
CATCH_UP = (
    r"from gunicorn\.glogging import loggers\n",
    r"def reopen_if_rotated(?s:.*?)\n\n\n",
    r"(?<=_reopen_logs\()catch_up=True",
    r"(?<=_reopen_logs\(self), catch_up: bool = False",
    r" {12}elif catch_up:\n {16}self\._reopen_rotated_logs\(\)\n",
    r"    def _reopen_rotated_logs(?s:.*?)\n\n(?=    \w)",
)

Files = Dict[str, str]  # The text of each file, by path


def without_catch_up(code: str) -> str:
    """The patched code less what the second commit adds; raises PatchError where that is not in it once."""
    for piece in CATCH_UP:
        code, times = re.subn(piece, "", code)
        if times != 1:
            raise PatchError(f"expected {piece!r} once in the patched code, found {times}; see CATCH_UP in {__file__}")
    return code


def inserted(text: str, addition: str, before: str) -> str:
    """The text with an addition before the first line that starts so; raises PatchError if there is none."""
    if not before:
        return text + addition
    line = re.search("^" + re.escape(before), text, re.MULTILINE)
    if line is None:
        raise PatchError(f"expected a line that starts with {before!r}, to add something before it; found none")
    return text[: line.start()] + addition + text[line.start() :]


def diff(old: Files, new: Files) -> str:
    text = ""
    for path in sorted(new):
        before, after = old.get(path), new[path]
        if before == after:
            continue
        name, mode = (f"a/{path}", "") if before is not None else ("/dev/null", "new file mode 100644\n")
        lines = difflib.unified_diff((before or "").splitlines(True), after.splitlines(True), name, f"b/{path}")
        text += f"diff --git a/{path} b/{path}\n{mode}" + "".join(lines)
    return text


def mail(number: int, total: int, message: str, changes: str) -> str:
    """A commit as git format-patch writes it, less what depends on git's version."""
    subject, _, body = message.partition("\n\n")
    return (
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001\nFrom: {AUTHOR}\nDate: {DATE}\n"
        f"Subject: [PATCH {number}/{total}] {subject}\n\n{body}---\n{changes}"
    )


def series(distribution: str) -> Files:
    """The files of patches/upstream/<distribution>/; raises PatchError, ReleaseError."""
    project = PROJECTS[distribution]
    patch = max(patches.catalogue(distribution), key=lambda patch: Version(patch.releases[-1]))
    tree = releases.source(distribution, patch.releases[-1])

    def own(name: str) -> str:
        return Template((SOURCES / name).read_text()).substitute(worker=project.worker)

    paths = [patch.target, project.documentation, *project.harness]
    release = {path: (tree / path).read_text() for path in paths if (tree / path).exists()}
    patched = patch.apply(release[patch.target].encode()).decode()

    rotation = {**release, patch.target: without_catch_up(patched)}
    for path, before in project.harness.items():
        rotation[path] = inserted(release.get(path, ""), own(f"{distribution}/{Path(path).name}.in"), before)
    rotation[TESTS] += own("test_rotation.py.in")
    boot = {**rotation, patch.target: patched, TESTS: rotation[TESTS] + own("test_boot.py.in")}
    documented = {**boot, project.documentation: own("log-rotation.md")}

    steps = [("rotation", release, rotation), ("boot", rotation, boot), ("documentation", boot, documented)]
    files = {"0000-cover-letter.md": own("cover-letter.md") + own(f"{distribution}/cover-letter.md")}
    for number, (name, old, new) in enumerate(steps, 1):
        message = own(f"{name}.txt")
        slug = re.sub("[^A-Za-z0-9]+", "-", message.splitlines()[0])[:52].strip("-")
        files[f"{number:04}-{slug}.patch"] = mail(number, len(steps), message, diff(old, new))
    return files


def write(distribution: str) -> None:
    folder = patches.PATCHES / "upstream" / distribution
    files = series(distribution)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        (folder / name).write_text(text)
        print(folder / name)


def main(arguments: List[str]) -> int:
    if arguments:
        print("usage: scripts/upstream.sh (no arguments: it writes patches/upstream/ anew)", file=sys.stderr)
        return 2
    try:
        for distribution in PROJECTS:
            write(distribution)
    except (PatchError, ReleaseError, OSError) as error:
        print(f"upstream.sh: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
