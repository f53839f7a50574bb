"""
Bytecode that goes with a changed source file.

What is there is compiled anew by the environment's own interpreter, so that RECORD, which may
list it, stays true, and that nothing stale is run: only timestamps would give it away, and not
even those in bytecode that is never checked (PEP 552). What another interpreter left goes.
"""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Dict, Optional

from usr1.environment import Environment
from usr1.refusal import refusal

# Runs on Python 3.6 too. The file name in the code, for tracebacks, and the way of
# invalidation stay as they are in the bytecode there.
_COMPILE = """
import marshal, py_compile, sys

source, cache, result, name, optimize = sys.argv[1:]
with open(cache, "rb") as file:
    old = file.read()
mode = {}
if sys.version_info >= (3, 7):
    flags = int.from_bytes(old[4:8], "little")
    modes = {1: "UNCHECKED_HASH", 3: "CHECKED_HASH"}
    mode["invalidation_mode"] = py_compile.PycInvalidationMode[modes.get(flags, "TIMESTAMP")]
try:
    name = marshal.loads(old[16 if mode else 12:]).co_filename
except (AttributeError, EOFError, TypeError, ValueError):
    pass  # It was no bytecode
py_compile.compile(source, result, name, True, int(optimize), **mode)
"""


def recompiled(environment: Environment, file: Path, source: Path) -> Dict[Path, Optional[bytes]]:
    """
    The bytecode files of a file, and what they are to hold once source is renamed over it: None, to be removed.

    Raises Refusal if the environment's interpreter cannot compile it.
    """
    contents: Dict[Path, Optional[bytes]] = {}
    for cache in sorted((file.parent / "__pycache__").glob(f"{file.stem}.*.pyc")):
        ours = re.fullmatch(rf"{file.stem}\.{re.escape(environment.cache_tag)}(?:\.opt-([12]))?\.pyc", cache.name)
        contents[cache] = _compile(environment, file, source, cache, int(ours[1] or 0)) if ours else None
    return contents


def _compile(environment: Environment, file: Path, source: Path, cache: Path, optimize: int) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory, "pyc")
        arguments = [str(source), str(cache), str(result), str(file), str(optimize)]
        command = [str(environment.python), "-I", "-S", "-c", _COMPILE, *arguments]
        answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if answer.returncode == 0:
            return result.read_bytes()
    said = answer.stdout.decode(errors="replace").strip()
    raise refusal(
        f"cannot compile {file}",
        f"{environment.python}, Python {environment.version}, to write bytecode for it",
        said.splitlines()[-1] if said else f"exit status {answer.returncode}",
        f"see why it cannot, or remove {cache}",
    )
