"""A second rotation, and its signal, in any line of the module while it handles a first one."""

import subprocess
from pathlib import Path

from test_module.conftest import MODULE, published

SCRIPT = """
import itertools, logging, os, signal, sys, types
import gunicorn_usr1

log = types.SimpleNamespace(cfg=types.SimpleNamespace(capture_output=True, errorlog="error.log"))
log.logfile = open("error.log", "a+")
handler = logging.FileHandler("a.log")
logging.getLogger("a").addHandler(handler)
signal.signal(signal.SIGUSR1, lambda number, frame: gunicorn_usr1.reopen_files(log))
numbers = itertools.count()

def rotate():
    for name in ("a.log", "error.log"):
        os.rename(name, "%s.%d" % (name, next(numbers)))
        open(name, "a").close()
    os.kill(os.getpid(), signal.SIGUSR1)

def is_current(fd, name):
    return os.path.samestat(os.fstat(fd), os.stat(name))

def trace(frame, event, argument):
    global left
    if frame.f_code.co_filename != gunicorn_usr1.__file__:
        return None
    left -= event == "line"
    if left == 0:
        rotate()
    return trace

for line in itertools.count(1):
    left = line
    sys.settrace(trace)
    rotate()
    sys.settrace(None)
    if not is_current(handler.stream.fileno(), "a.log") or not is_current(log.logfile.fileno(), "error.log"):
        sys.exit("missed a rotation in line %d" % line)
    if left > 0:
        print("interrupted in", line - 1, "lines", file=sys.__stdout__)
        break
"""


def test_a_second_rotation_is_never_missed(tmp_path: Path) -> None:
    (tmp_path / "gunicorn_usr1.py").write_text(MODULE.read_text())
    command = [str(published("gunicorn 27.0.1").python), "-c", SCRIPT]
    answer = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = answer.stdout + "".join(path.read_text() for path in tmp_path.glob("error.log*"))
    assert answer.returncode == 0, said
    lines = int(said.split("interrupted in ")[1].split()[0])
    assert lines > 50
