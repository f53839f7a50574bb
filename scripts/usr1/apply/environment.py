"""
The virtual environment that a script is pointed at.

Nothing of it is run to look at it, nor imported: it may belong to another user, and be broken. What it is
stands in pyvenv.cfg, or else in the names of its directories.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import List, NamedTuple

from usr1.apply import processes
from usr1.apply.files import Tree
from usr1.apply.screen import dot, lines_of
from usr1.refusal import Refusal, refusal


class Environment(NamedTuple):
    path: Path  # Absolute, with the symbolic links that the user named
    python: Path
    version: str
    site_packages: Path

    @property
    def settings(self) -> str:
        """What is in pyvenv.cfg."""
        with Tree(self.path) as tree:
            return _text(tree, self.path / "pyvenv.cfg")

    @property
    def prefixes(self) -> List[Path]:
        """What the interpreter that it was made from may be installed under: where pyvenv.cfg and bin/python lead."""
        home = re.search(r"(?m)^home\s*=\s*(.*?)\s*$", self.settings)
        homes = [Path(home[1])] if home else []
        return [one.parent for one in (*homes, Path(os.path.realpath(self.python)).parent)]

    @property
    def seen(self) -> List[Path]:
        """The packages that --system-site-packages lets it see: pip's and Debian's."""
        if not re.search(r"(?mi)^include-system-site-packages\s*=\s*true\s*$", self.settings):
            return []
        python = self.site_packages.parent.name
        inside = (f"lib/{python}/site-packages", f"local/lib/{python}/dist-packages", "lib/python3/dist-packages")
        return [base / path for base in self.prefixes for path in inside]

    @property
    def beyond(self) -> List[Path]:
        """Where else its interpreter imports from: what .pth files name, and the base's packages if it sees them."""
        with Tree(self.path) as tree:
            texts = [_text(tree, pth) for pth in tree.names(self.site_packages, "*.pth")]
        named = [path for text in texts for path in named_by_pth(text, self.site_packages)]
        own = Path.home() / ".local" / "lib" / self.site_packages.parent.name / "site-packages"
        return [*named, *self.seen, *([own] if self.seen else [])]

    @property
    def warning(self) -> str:
        """If bin/gunicorn runs the Python of another environment, as in one that was copied or moved."""
        script = self.path / "bin" / "gunicorn"
        with Tree(self.path) as tree:
            runs = re.match(r"#!(?:/bin/sh\n'''exec' )?(\"?)(/.*?python[^\s\"]*)\1(?: |\n)", _text(tree, script))
        if not runs or os.path.realpath(os.path.dirname(runs[2])) == os.path.realpath(script.parent):
            return ""
        return f"warning: {script} runs {runs[2]}, not {self.python}: what it starts is not what is patched here"

    def pip(self, arguments: str) -> str:
        """The command line with which a user of this environment would install something."""
        if (self.path / "bin" / "pip").exists():
            return f"{shlex.quote(str(self.path / 'bin' / 'pip'))} {arguments}"
        return f"uv pip {arguments} --python {shlex.quote(str(self.python))}"

    def reinstall(self, requirement: str, copied: bool = False) -> str:
        """The command line that puts a distribution back as it was published; copied, as pip does, not linked."""
        command = self.pip(f"install --force-reinstall --no-deps {requirement}")
        return f"{command} --link-mode copy" if copied and command.startswith("uv ") else command


def named_by_pth(text: str, site_packages: Path) -> List[Path]:
    """As the module site has it: other lines are code, or no paths."""
    lines = [line for line in text.splitlines() if line.strip()]
    return [site_packages / line.strip() for line in lines if not re.match(r"[#\s]|import\s", line)]


def exists(path: Path) -> bool:
    """Whether there is anything in a place; raises Refusal if one cannot tell."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreadable(path, error) from error
    return True


def unreadable(path: Path, error: OSError) -> Refusal:
    return refusal(
        f"cannot look at {path}",
        "a path that leads to an environment, or to nothing",
        f"{error} (as user {os.getuid()})",
        "run this as a user who may look there, or name another",
    )


def find(path: Path) -> Environment:
    """The environment in a directory; raises Refusal if there is none."""
    python = path / "bin" / "python"
    if not exists(python) and os.path.islink(python):
        raise refusal(
            f"{path} has lost its Python",
            f"a Python in {python}",
            f"a link to {os.path.realpath(python)}, which is not there",
            "install that Python again, or make the environment anew",
        )
    if not exists(python):
        raise refusal(
            f"{path} is not a virtual environment",
            f"a Python in {python}",
            "none" if exists(path) else f"no directory {path}",
            "name the environment's directory, the one that bin/python is in"
            + ("; or see docs/installations.md" if exists(path) else "; to have a new one made there, --create"),
        )
    path = Path(os.path.abspath(path))
    try:
        with Tree(path) as tree:
            version = _version(tree)
            number = re.escape(".".join(version.split(".")[:2])) or r"3\.\d+"
            names = tree.names(_own(path / "lib"), "py*")
            libraries = [one for one in names if re.fullmatch(rf"py[a-z]+{number}t?", one.name)]
            found = [_own(one / "site-packages") for one in libraries if tree.names(_own(one), "site-packages")]
    except OSError as error:
        raise unreadable(path, error) from error
    if len(found) != 1:
        raise refusal(
            f"{path} is not an environment with packages of its own",
            f"one directory {path}/lib/python{version or '3.*'}/site-packages",
            " and ".join(map(str, found)) or "none",
            "see docs/installations.md for other kinds of installations",
        )
    [site_packages] = found
    return Environment(path, path / "bin" / "python", version or site_packages.parent.name, site_packages)


def _own(directory: Path) -> Path:
    """Raises Refusal for a link: what it leads to may belong to others, and Tree follows none."""
    if directory.is_symlink():
        raise refusal(
            f"{directory} is a link",
            "a directory of the environment's own",
            f"a link to {os.readlink(directory)}",
            "replace the link by the directory itself; or see docs/installations.md for other ways",
        )
    return directory


def _version(tree: Tree) -> str:
    """As pyvenv.cfg has it, or else what bin/python links to, as conda has no pyvenv.cfg; empty if neither tells."""
    settings = _text(tree, tree.root / "pyvenv.cfg")
    target = os.path.basename(os.path.realpath(tree.root / "bin" / "python"))
    found = re.search(r"(?m)^version(?:_info)?\s*=\s*(\d+\.\d+(?:\.\d+)?)", settings)
    found = found or re.search(r"(\d+\.\d+)t?$", target)
    return found[1] if found else ""


def _text(tree: Tree, path: Path) -> str:
    """What is in a file, nothing if there is none."""
    try:
        return tree.read(path).content.decode(errors="surrogateescape")
    except OSError:
        return ""


def create(path: Path, requirements: List[str]) -> None:
    """Make an environment with uv where there is one, else venv and pip; raises Refusal, and leaves nothing then."""
    # The interpreter behind the tools' own environment: a new one should not depend on that.
    python = getattr(sys, "_base_executable", None) or sys.executable
    inside = str(path / "bin" / "python")
    uv = shutil.which("uv") if sys.version_info >= (3, 7) else None  # It knows no older Python
    if uv:
        commands = [
            [uv, "venv", "--quiet", "--python", python, str(path)],
            [uv, "pip", "install", "--quiet", "--python", inside, *requirements],
        ]
    else:
        commands = [
            [python, "-m", "venv", str(path)],
            [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
        ]
    try:
        path.mkdir()  # Not if another run has just made it
    except OSError as error:
        there = "remove it, if it is a link that leads nowhere, or run this again, if another run has just made it"
        raise refusal(
            f"cannot create {path}",
            "to make that directory",
            str(error),
            there if isinstance(error, FileExistsError) else "make its parent directory first, or name another",
        ) from error
    try:
        for command in commands:
            _run(command, path, requirements)
    except BaseException:
        shutil.rmtree(path)
        raise


def _run(command: List[str], path: Path, requirements: List[str]) -> None:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            said = "\n".join(lines_of(process, dot))
        except BaseException:
            _end(process.pid)
            raise
    if process.returncode != 0:
        raise refusal(
            f"cannot create {path}",
            f"an environment with {' and '.join(requirements)}",
            said.strip() or f"exit status {process.returncode}",
            f"see why this fails: {' '.join(map(shlex.quote, command))}",
        )


def _end(pid: int) -> None:
    """
    End a process and all that it has started, which would go on writing what is removed.

    A process group would do, but one of its own could ask nobody for the index's password on the terminal.
    """
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGSTOP)  # What is stopped starts nothing more.
        started = [one for one, process in processes.running().items() if process.parent == pid]
        os.kill(pid, signal.SIGKILL)
        for one in started:
            _end(one)
        deadline = time.monotonic() + 1
        list(iter(lambda: pid in processes.running() and time.monotonic() < deadline, False))  # Look until it is gone
