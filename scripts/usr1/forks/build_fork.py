"""The wheels of the forks: what scripts/build-fork.sh runs."""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import List, Sequence

from usr1 import patches, wheel
from usr1.forks import fork
from usr1.refusal import Refusal, refusal

REFUSED = 2


def build(distribution: str, releases: Sequence[str], outdir: Path) -> None:
    """
    Write a wheel for each release, telling the progress, and SHA256SUMS of every fork in outdir.

    Raises Refusal if one cannot be made.
    """
    for release in releases:
        fork.find(distribution, release)

    def one(release: str) -> Path:
        with tempfile.TemporaryDirectory() as directory:
            wheel.fetch(distribution, release, directory)
            files = wheel.installed(distribution, [directory])
        return wheel.pack(fork.fork(distribution, files, release), outdir)

    with ThreadPoolExecutor(os.cpu_count()) as workers:
        for n, path in enumerate(workers.map(one, releases), 1):
            print(f"[{n}/{len(releases)}] {path}", flush=True)
    forks = sorted(outdir.glob("*+usr1.*.whl"))
    sums = [f"{patches.sha256(path.read_bytes())}  {path.name}\n" for path in forks]
    wheel.write(outdir / "SHA256SUMS", "".join(sums).encode())


def main(arguments: List[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="build-fork.sh",
        usage="scripts/build-fork.sh [-h] [--distribution DISTRIBUTION] [--outdir OUTDIR] [--all | VERSION ...]",
        description="Build the patched wheels, X.Y.Z+usr1.N, from the published releases.",
        epilog="Exit status: 0 done; 2 refused, and the message says why.",
    )
    names = patches.DISTRIBUTIONS
    parser.add_argument(
        "--distribution",
        choices=names,
        metavar="DISTRIBUTION",
        help=f"{', '.join(names)} (default: {names[0]}; with --all, every distribution)",
    )
    parser.add_argument("--outdir", type=Path, default=Path("dist"), help="where the wheels go (default: dist)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("versions", nargs="*", metavar="VERSION", default=[], help="releases (default: the newest)")
    what.add_argument("--all", action="store_true", help="every release that has a patch")
    options = parser.parse_args(arguments)
    try:
        for distribution in [options.distribution] if options.distribution else names if options.all else names[:1]:
            every = patches.releases(distribution)
            build(distribution, every if options.all else options.versions or every[-1:], options.outdir)
        return 0
    except Refusal as error:
        refused = error
    except OSError as error:
        expected = "a directory that may be written, with room on its disk"
        do = "name another one, or mend that"
        refused = refusal(f"{options.outdir} cannot be written", expected, str(error), do)
    print(f"build-fork.sh: {refused}", file=sys.stderr)
    return REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
