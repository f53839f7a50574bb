"""A function is interrupted at all of its boundaries by every Python, in its first call too."""

import subprocess

import environments
import pytest

from test_interruptions.subjects import SERVED

SCRIPT = """
import sys
import shots

def function(number):
    for _ in range(2):
        number += len("a")

def boundaries():
    places = []
    shots.choose = lambda frame: places.append(frame.f_lasti) or 0
    sys.settrace(lambda frame, event, argument: shots.trace_boundaries(frame))
    function(1)
    sys.settrace(None)
    return places

first, second = boundaries(), boundaries()
assert first == second, (first, second)
assert len(first) > 20, first
"""


@pytest.mark.root
@pytest.mark.parametrize(
    "python", [version for version in environments.pythons() if version >= (3, 7)], ids="{0[0]}.{0[1]}".format
)
def test_the_first_call_has_all_boundaries(python: environments.Version) -> None:
    subprocess.run([environments.pythons()[python], "-c", SCRIPT], cwd=SERVED, check=True)
