#!/usr/bin/env bash
# scripts/test.sh [--full] [PYTEST ARGUMENT ...]
#
# Without arguments: style, types, and the tests that most likely notice what a change breaks.
# A path runs a part of them. --full runs the sweeps too, or those of a path, and goes on where a
# run of the same files was interrupted:
#
#   tests/test_combinations.py  the properties on a release for each patch, patched and pristine
#   tests/test_sentences.py     what they say on releases that are not patched
#   tests/test_gunicorn         patched Gunicorn: each release's patch under each worker class
#   tests/test_interruptions    a signal at every bytecode boundary, one by one and in storms
#   tests/test_mutations        each statement of a patch left out, and what might tempt instead
#   tests/test_differential     every other signal, and logging, as in the pristine release
#   tests/test_machine.py       rules that draw what happens to a server, step by step
#   tests/test_load.py          boots and rotations under full load
#   tests/test_reopen           reopen.sh beside each worker class, with many rotations
#   tests/test_apply            apply.sh killed, and failed, at every system call
#   tests/test_tools.py         the tools of the scripts, made at the same time
#   tests/test_forks            every release by every tool that installs packages
#   tests/test_patches          refresh.sh, with what upstream might do
#   tests/test_upstream         upstream's own tests with the series applied
#   tests/test_bundle.py        apply.sh without an index
#   tests/test_documentation.py the Dockerfiles
#   tests/test_bench.py         a small benchmark
#
# --full without a path ends with docs/matrix.md: the properties on every patched release of uvicorn
# and uvicorn-worker. --environment VENV tests/properties runs them on one environment.
# --rest runs what an earlier run of the same files has skipped, and what shows more as root: for
# root, after an ordinary user.
# Needs Python 3.9, the Debian packages of tests/packages, and a package index that pip and uv reach;
# it says what is missing.
#
# Exit status: 0 all passed; 2 something is missing, and nothing was run; else something failed.
set -eu

case ${1-} in -h | --help)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac

# shellcheck source=scripts/tools.sh
. "$(dirname "$(readlink -f "$0")")/tools.sh"
# shellcheck source=tests/look.sh
. "$root/tests/look.sh"
cd "$root"
# Some programs are root's, by their place, but tests run them as anybody.
PATH=$PATH:/usr/sbin:/sbin
tools=$(compgen -G ".tools-test-*/bin/uv") || true
look
# All tools, or a test would have to wait for those of the scripts that it runs.
use_tools run scripts/requirements.txt
use_tools test tests/requirements.txt
find_pip "$TOOLS"
set_uv
[ -n "$tools" ] || look # Now with uv
# With the tools' uv in front: what the scripts do with uv and what they do without it is for tests
# to choose, not for the machine.
PATH=$(dirname "$TOOLS"):$PATH
export PATH
tool() { "$TOOLS" -m "$@"; }

tool ruff check
tool ruff format --check
tool mypy
shellcheck -x scripts/*.sh .ci/run

unset PYTHONDONTWRITEBYTECODE # Or each of the many processes compiles all of its modules.
export COVERAGE_FILE=$root/.cache/coverage/data
[ "$*" = --rest ] || rm -rf "$root/.cache/coverage"
mkdir -p "$root/.cache/coverage"
# Half of the time tests wait for servers: twice as many at a time as there are cores.
tool coverage run -m pytest -n "$(($(nproc) * 2))" --dist worksteal --durations=10 "$@"
# A part of the tests covers a part of the scripts, and so does who is not root.
if [ $# = 0 ] || [ "$*" = --rest ]; then
    tool coverage combine --quiet --append
    [ "$(id -u)" = 0 ] && least=100 || least=99
    tool coverage report --fail-under="$least"
fi
if [ "$*" = --full ]; then
    PYTHONPATH=scripts:tests "$TOOLS" tests/matrix.py
fi
