"""
The patches are what their headers say: complete, true, without gap or overlap, strictly
applicable to every release that they name, and the same but for the differences listed here.
"""

import datetime
import difflib
import os
import re
import subprocess
import sys
import textwrap
from email.parser import HeaderParser
from pathlib import Path

import environments
import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from usr1 import patches, releases
from usr1.patches import Patch

FIELDS = [
    *("Description", "Origin", "Bug", "Forwarded", "Last-Update"),  # DEP-3's
    *("Applies-To", "Revision", "Pristine-SHA256", "Patched-SHA256"),  # our own
]
CATALOGUE = [patch for distribution in patches.DISTRIBUTIONS for patch in patches.catalogue(distribution)]
every_patch = pytest.mark.parametrize("patch", CATALOGUE, ids=lambda patch: f"{patch.distribution}-{patch.path.stem}")
every_distribution = pytest.mark.parametrize("distribution", patches.DISTRIBUTIONS)


def header(patch: Patch) -> str:
    text = patch.path.read_bytes().decode()
    assert text.endswith(patch.text)
    return text[: -len(patch.text)]


def pristine(patch: Patch, release: str) -> bytes:
    return (releases.unpacked(patch.distribution, release) / patch.target).read_bytes()


def patched(patch: Patch) -> bytes:
    return patch.apply(pristine(patch, patch.releases[-1]))


@every_patch
def test_header_is_complete(patch: Patch) -> None:
    fields = HeaderParser().parsestr(header(patch))
    assert fields.keys() == FIELDS
    assert all(fields.values())
    assert not fields.defects
    assert re.fullmatch(r"(upstream|backport|vendor|other)\b.*", fields["Origin"])
    assert re.fullmatch(r"https://\S+", fields["Bug"])
    assert re.fullmatch(r"no|not-needed|https://\S+", fields["Forwarded"])
    last_update = datetime.datetime.strptime(fields["Last-Update"], "%Y-%m-%d")
    assert last_update < datetime.datetime.now() + datetime.timedelta(days=1)
    assert patch.revision >= 1
    for digest in (patch.pristine_sha256, patch.patched_sha256):
        assert re.fullmatch(r"[0-9a-f]{64}", digest)


@every_patch
def test_header_is_folded_and_named_after_its_releases(patch: Patch) -> None:
    applies_to = "Applies-To: " + " ".join((patch.distribution, *patch.releases))
    folded = textwrap.fill(applies_to, 78, subsequent_indent=" ", break_on_hyphens=False)
    assert f"\n{folded}\n" in header(patch)
    assert max(len(line) for line in header(patch).splitlines() if "-SHA256: " not in line) <= 80
    assert patch.path.parent.name == patch.distribution
    first, last = patch.releases[0], patch.releases[-1]
    assert patch.path.stem == (first if first == last else f"{first}-{last}")


@every_distribution
def test_releases_without_overlap_or_gap(distribution: str) -> None:
    ordered = sorted(patches.catalogue(distribution), key=lambda patch: Version(patch.releases[0]))
    named = [Version(release) for patch in ordered for release in patch.releases]
    assert named == sorted(set(named)), "each release in one patch, and in order"
    published = [Version(release) for release in releases.published(distribution)]
    # A yanked release is named, though the index no longer offers it; later ones are for refresh.sh --check.
    assert {release for release in published if named[0] <= release <= named[-1]} <= set(named)


@every_distribution
def test_each_pristine_file_and_hook_has_one_patch(distribution: str) -> None:
    found = [
        (patch.pristine_sha256, releases.server_hooks(releases.unpacked(distribution, patch.releases[0])))
        for patch in patches.catalogue(distribution)
    ]
    assert len(found) == len(set(found))


@every_patch
def test_description_names_the_hooks_of_its_releases(patch: Patch) -> None:
    described = set(re.findall(r"Server\.(\w+)\(\)", HeaderParser().parsestr(header(patch))["Description"]))
    for release in patch.releases:
        assert releases.server_hooks(releases.unpacked(patch.distribution, release)) <= described
    added = "".join(line for line in patch.text.splitlines(keepends=True) if line.startswith("+"))
    assert set(re.findall(r"super\(\)\.(install_signal_handlers|capture_signals)\(", added)) == described


def tool_applies(command: "list[str]", patch: Patch, before: bytes, folder: Path) -> bytes:
    """What a tool makes of a pristine file; fails unless it says that every hunk is where the diff has it."""
    target = folder / patch.target
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(before)
    environment = {**os.environ, "LC_ALL": "C", "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    answer = subprocess.run(
        [*command, str(patch.path)],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert answer.returncode == 0, answer.stdout
    assert not re.search("offset|fuzz", answer.stdout), answer.stdout
    return target.read_bytes()


GIT = ["git", "apply", "--verbose"]
PATCH = ["patch", "--strip=1", "--fuzz=0", "--verbose", "--input"]


@every_patch
def test_applies_strictly_to_every_release_it_names(patch: Patch, tmp_path: Path) -> None:
    for release in patch.releases:
        before = pristine(patch, release)
        assert patches.sha256(before) == patch.pristine_sha256, release
        after = patch.apply(before)
        assert patches.sha256(after) == patch.patched_sha256
        assert patch.revert(after) == before
        assert tool_applies(GIT, patch, before, tmp_path) == after
        assert tool_applies(PATCH, patch, before, tmp_path) == after
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [tmp_path / patch.target]


@pytest.mark.parametrize("command", [GIT, PATCH], ids=["git", "patch"])
def test_an_offset_would_be_noticed(command: "list[str]", tmp_path: Path) -> None:
    patch = CATALOGUE[-1]
    before = b"# One line more\n" + pristine(patch, patch.releases[-1])
    with pytest.raises(AssertionError, match="offset"):
        tool_applies(command, patch, before, tmp_path)
    with pytest.raises(patches.PatchError, match="has SHA-256"):
        patch.apply(before)


@every_patch
def test_diff_is_the_canonical_one(patch: Patch) -> None:
    """Three lines of context, the fewest changes, counts that are true: as difflib writes it."""
    before, after = pristine(patch, patch.releases[0]).decode(), patched(patch).decode()
    files = f"a/{patch.target}", f"b/{patch.target}"
    diff = difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), *files, n=3)
    assert "".join(diff) == patch.text


def oldest_python(patch: Patch) -> Path:
    supported = []
    for release in patch.releases:
        [metadata] = releases.unpacked(patch.distribution, release).glob("*.dist-info/METADATA")
        supported.append(SpecifierSet(HeaderParser().parsestr(metadata.read_text())["Requires-Python"] or ""))
    runs = [
        python
        for version, python in environments.pythons().items()
        if any(specifier.contains("{}.{}.99".format(*version)) for specifier in supported)
    ]
    return runs[0]


@every_patch
def test_result_compiles_on_the_oldest_python(patch: Patch) -> None:
    command = [
        str(oldest_python(patch)),
        "-W",
        "error",
        "-c",
        "import sys; compile(sys.stdin.buffer.read(), 'f', 'exec')",
    ]
    answer = subprocess.run(command, input=patched(patch), capture_output=True)
    assert answer.returncode == 0, answer.stderr.decode()


@every_patch
def test_result_has_no_unused_import_and_no_undefined_name(patch: Patch) -> None:
    ruff = [str(Path(sys.executable).with_name("ruff")), "check", "--isolated", "--select", "F", "--line-length", "120"]
    answer = subprocess.run([*ruff, "-"], input=patched(patch), capture_output=True)
    assert answer.returncode == 0, answer.stdout.decode()


UNTYPED = ["0.13.0-0.13.2", "0.13.3-0.13.4"]
RUN_ONCE = [*UNTYPED, "0.14.0"]
INTERRUPTING = [*RUN_ONCE, "0.15.0-0.16.0", "0.17.0-0.18.3"]
NO_FUTURE = ["0.14.0", "0.15.0-0.16.0", "0.17.0-0.18.3", "0.19.0", "0.20.0-0.27.1"]
OLD_HOOK = [*UNTYPED, *NO_FUTURE, "0.28.0-0.28.1"]

CAPTURE = """\
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        with super().capture_signals():
            self.worker.capture_usr1()
            yield
"""
INSTALL = """\
    def install_signal_handlers(self) -> None:
        super().install_signal_handlers()
        self.worker.capture_usr1()
"""
INSTALL_WHERE_THERE_IS_ONE = """\
    def install_signal_handlers(self) -> None:
        # Up to uvicorn 0.28.1
        super().install_signal_handlers()  # type: ignore[misc]
        self.worker.capture_usr1()
"""
HANDLER = "        signal.signal(signal.SIGUSR1, self._defer_usr1)\n"
UNINTERRUPTED = """\
        # Don't let SIGUSR1 disturb active requests by interrupting system calls
        signal.siginterrupt(signal.SIGUSR1, False)
"""

#: Why the added code of some patches differs from that of the newest patch of uvicorn, in which ones, and how.
#: Imports and blank lines aside: those depend on what the file has already.
DIFFERENCES = [
    ("the server takes signals over elsewhere", OLD_HOOK, [(CAPTURE, INSTALL)]),
    ("runs with uvicorns of both hooks", ["0.2.0-0.3.0"], [(CAPTURE, INSTALL_WHERE_THERE_IS_ONE + CAPTURE)]),
    ("upstream does not set siginterrupt yet", INTERRUPTING, [(HANDLER, HANDLER + UNINTERRUPTED)]),
    (
        "upstream runs the loop only once, so what is running will do",
        RUN_ONCE,
        [
            ("    _usr1_loop: asyncio.AbstractEventLoop | None = None\n", ""),
            ("        self._usr1_loop = asyncio.get_running_loop()\n", ""),
            ("self._usr1_loop or ", ""),
            ("loop is not None and not loop.is_closed()", "loop is not None"),
        ],
    ),
    ("runs on Python 3.6", ["0.15.0-0.16.0"], [("asyncio.get_running_loop()", "asyncio.get_event_loop()")]),
    (
        "upstream resets no signal",
        ["0.13.0-0.13.2"],
        [("        for s in set(self.SIGNALS) - {signal.SIGUSR1}:\n", "")],
    ),
    (
        "annotations are evaluated",
        NO_FUTURE,
        [
            ("worker: UvicornWorker", 'worker: "UvicornWorker"'),
            ("FrameType | None", "Optional[FrameType]"),
        ],
    ),
    (
        "so are those of what is stored",
        [stem for stem in NO_FUTURE if stem not in RUN_ONCE],
        [("asyncio.AbstractEventLoop | None", "Optional[asyncio.AbstractEventLoop]")],
    ),
    (
        "upstream has no annotations",
        UNTYPED,
        [
            ("(fd: int, path: str) -> None:", "(fd, path):"),
            ("(self, config: Config, worker: UvicornWorker) -> None:", "(self, config, worker):"),
            ("_install_sigusr1_handler(self) -> None:", "_install_sigusr1_handler(self):"),
            ("(self, sig: int, frame: FrameType | None) -> None:", "(self, sig, frame):"),
            ("capture_usr1(self) -> None:", "capture_usr1(self):"),
            ("_reopen_logs(self, catch_up: bool = False) -> None:", "_reopen_logs(self, catch_up=False):"),
            ("_reopen_rotated_logs(self) -> None:", "_reopen_rotated_logs(self):"),
        ],
    ),
]


def added_code(patch: Patch) -> str:
    added = [line[1:] for line in patch.text.splitlines(keepends=True) if line.startswith("+")][1:]
    return "".join(line for line in added if line.strip() and not re.match("import |from ", line))


@every_patch
def test_added_code_is_the_same_but_for_the_listed_differences(patch: Patch) -> None:
    newest = patches.catalogue("uvicorn")[-1]
    expected = added_code(newest)
    for why, stems, replacements in DIFFERENCES:
        for new, old in replacements if patch.path.stem in stems else []:
            assert new in expected, f"stale: {why}"
            expected = expected.replace(new, old)
    assert added_code(patch) == "".join(line + "\n" for line in expected.splitlines() if line)
