"""The wheels of the forks, and their source trees: what scripts/build-fork.sh runs."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import List, Sequence

from usr1 import fork, patches, wheel
from usr1.refusal import Refusal, refusal

REFUSED = 2


def fetch(distribution: str, release: str) -> wheel.Files:
    """
    The files of a published release, by uv if it is there, or else by pip, with the user's settings.

    Raises Refusal, with what the installer says, if it cannot be had.
    """
    uv = shutil.which("uv")
    if uv:
        installer = [uv, "pip", "install", "--python", sys.executable]
    else:
        # The metadata of 0.13.0 to 0.13.2 and 0.14.0 is not valid; this resolver does not mind
        installer = [sys.executable, "-m", "pip", "install", "--use-deprecated=legacy-resolver"]
    with tempfile.TemporaryDirectory() as target:
        # Its files are only read, so for any Python: claim one newer than all that a release may require
        options = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.99", "--target", target]
        command = [*installer, "--quiet", *options, f"{distribution}==={release}"]
        answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if answer.returncode != 0:
            raise refusal(
                f"{distribution} {release} cannot be fetched",
                f"its wheel, from {' '.join(command[:3])} ...",
                answer.stdout.strip(),
                f"look at the network, the index and the settings of {'uv' if uv else 'pip (taken if there is no uv)'}",
            )
        return wheel.installed(distribution, [target])


def build(distribution: str, releases: Sequence[str], outdir: Path) -> None:
    """
    Write a wheel for each release, telling the progress, and SHA256SUMS of every fork in outdir.

    Raises Refusal if one cannot be made.
    """
    for release in releases:
        fork.find(distribution, release)

    def one(release: str) -> Path:
        return wheel.pack(fork.fork(distribution, fetch(distribution, release), release), outdir)

    with ThreadPoolExecutor(os.cpu_count()) as workers:
        for n, path in enumerate(workers.map(one, releases), 1):
            print(f"[{n}/{len(releases)}] {path}", flush=True)
    forks = sorted(outdir.glob("*+usr1.*.whl"))
    sums = [f"{patches.sha256(path.read_bytes())}  {path.name}\n" for path in forks]
    wheel.write(outdir / "SHA256SUMS", "".join(sums).encode())


def checkout(distribution: str, release: str, directory: Path) -> None:
    """
    Make a git repository of a release: as published, and the patch as a commit on top.

    All or nothing; raises Refusal if the directory is there and not empty, or the working directory.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise refusal(f"{directory} is in use", "an empty directory, or none", "files", "name another one")
    if directory.resolve() == Path.cwd():
        raise refusal(f"{directory} is in use", "an empty directory, or none", "the working directory", "name another")
    patch = fork.find(distribution, release)
    if not shutil.which("git"):
        raise refusal("there is no git to make a repository with", "git on the PATH", "none", "install git")
    files = fetch(distribution, release)
    forked = fork.fork(distribution, files, release)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".") as scratch:
        tree = Path(scratch, "tree")
        tree.mkdir()
        _git(tree, "init", "--quiet")
        _commit(tree, files, f"{distribution} {release}, as published")
        subject, _, description = fork.header(patch)["Description"].replace("\n ", "\n").partition("\n")
        _commit(tree, {patch.target: forked[patch.target]}, f"{subject}\n\n{description}")
        tree.replace(directory)


def _commit(tree: Path, files: wheel.Files, message: str) -> None:
    for name, data in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    _git(tree, "add", "--all")
    _git(tree, "commit", "--quiet", "--message", message)


def _git(tree: Path, *command: str) -> None:
    # Not the user's name, signature, hooks, ignored files or line endings, nor the repository of a hook this runs in
    others = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    who = {f"GIT_{role}_{what}": "uvicorn-usr1" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    alone = {**others, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    answer = subprocess.run(
        ["git", *command], cwd=tree, env=alone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if answer.returncode != 0:
        raise refusal(
            "git cannot make the repository",
            f"git {command[0]} to succeed",
            f"exit status {answer.returncode}: {answer.stdout.strip()}",
            "look at the disk, and at git",
        )


def _refused(error: Refusal) -> int:
    print(f"build-fork.sh: {error}", file=sys.stderr)
    return REFUSED


def main(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="build-fork.sh",
        description="Build the patched wheels, X.Y.Z+usr1.N, from the published releases.",
        epilog="Exit status: 0 done; 2 refused, and the message says why. Every wheel that is there is whole.",
    )
    parser.add_argument("--distribution", choices=patches.DISTRIBUTIONS, default=patches.DISTRIBUTIONS[0])
    parser.add_argument("--outdir", type=Path, help="where the wheels go (default: dist)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("versions", nargs="*", metavar="VERSION", default=[], help="releases (default: the newest)")
    what.add_argument("--all", action="store_true", help="every release that has a patch")
    what.add_argument("--checkout", nargs=2, metavar=("VERSION", "DIR"), help="make a git repository to read instead")
    options = parser.parse_args(arguments)
    if options.checkout and options.outdir:
        parser.error("argument --outdir: not allowed with argument --checkout")
    every = fork.releases(options.distribution)
    outdir = options.outdir or Path("dist")
    try:
        if options.checkout:
            outdir = Path(options.checkout[1])
            checkout(options.distribution, options.checkout[0], outdir)
        else:
            build(options.distribution, every if options.all else options.versions or every[-1:], outdir)
    except Refusal as error:
        return _refused(error)
    except OSError as error:
        expected = "a directory that may be written, with room on its disk"
        return _refused(refusal(f"{outdir} cannot be written", expected, str(error), "name another one, or mend that"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
