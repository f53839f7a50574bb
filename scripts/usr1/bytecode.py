"""
Bytecode that goes with a changed source file.

What is there is compiled anew by the environment's own interpreter, so that RECORD, which may
list it, stays true, and that nothing stale is run: only timestamps would give it away, and not
even those in bytecode that is never checked (PEP 552). What another interpreter left goes.
"""

import re
import subprocess
from pathlib import Path
from typing import Dict, Optional

from usr1.environment import Environment
from usr1.installed import listed
from usr1.refusal import refusal

# Runs on Python 3.6 too. The file name in the code, for tracebacks, and the way of
# invalidation stay as they are in the bytecode there.
_COMPILE = """
import importlib.util, marshal, os, sys

source, cache, name, optimize = sys.argv[1:]
with open(source, "rb") as file:
    text = file.read()
with open(cache, "rb") as file:
    old = file.read()
head = importlib.util.MAGIC_NUMBER
if sys.version_info >= (3, 7):
    head += old[4:8] if old[4:8] in (b"\\1\\0\\0\\0", b"\\3\\0\\0\\0") else bytes(4)
try:
    name = marshal.loads(old[len(head) + 8:]).co_filename
except (AttributeError, EOFError, TypeError, ValueError):
    pass  # It was no bytecode
if any(head[4:]):
    head += importlib.util.source_hash(text)
else:
    head += (int(os.stat(source).st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + len(text).to_bytes(4, "little")
code = compile(text, name, "exec", dont_inherit=True, optimize=int(optimize))
sys.stdout.buffer.write(head + marshal.dumps(code))
"""


def recompiled(environment: Environment, file: Path, source: Path) -> Dict[Path, Optional[bytes]]:
    """
    The bytecode files of a file, and what they are to hold once source is renamed over it: None, to be removed.

    Raises Refusal if the environment's interpreter cannot compile it.
    """
    contents: Dict[Path, Optional[bytes]] = {}
    for cache in listed(file.parent / "__pycache__", f"{file.stem}.*.pyc"):
        ours = re.fullmatch(rf"{file.stem}\.{re.escape(environment.cache_tag)}(?:\.opt-([12]))?\.pyc", cache.name)
        contents[cache] = _compile(environment, file, source, cache, int(ours[1] or 0)) if ours else None
    return contents


def _compile(environment: Environment, file: Path, source: Path, cache: Path, optimize: int) -> bytes:
    arguments = [str(source), str(cache), str(file), str(optimize)]
    answer = subprocess.run([str(environment.python), "-I", "-S", "-c", _COMPILE, *arguments], capture_output=True)
    if answer.returncode == 0:
        return answer.stdout
    said = answer.stderr.decode(errors="replace").strip()
    raise refusal(
        f"cannot compile {file}",
        f"{environment.python}, Python {environment.version}, to write bytecode for it",
        said.splitlines()[-1] if said else f"exit status {answer.returncode}",
        f"see why it cannot, or remove {cache}",
    )
