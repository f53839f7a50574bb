#!/usr/bin/env bash
# scripts/test.sh [--full | --rest] [PYTEST ARGUMENT ...]
# scripts/test.sh --environment VENV tests/properties
#
# Checks style and types. Then it runs the tests (with paths, only the tests there): some of their cases, or with
# --full all cases. If no file has changed since an earlier --full run, --full leaves out the cases that have
# passed then. What --full adds:
#
#   tests/test_combinations.py  tests/properties on every release of uvicorn, and on every patch of Gunicorn
#   tests/test_gunicorn         Gunicorn's patches: each of them with each worker class
#   tests/test_interruptions    one signal, or many in a row, between any two bytecodes
#   tests/test_mutations.py     a patch without one of its statements, and typical wrong changes
#   tests/test_load.py          more rotations under full load
#   tests/test_reopen           reopen.sh with uvicorn's worker, gthread and asgi, and many rotations
#   tests/test_apply            apply.sh, with a kill or an error at every system call; old Pythons; sudo pip; as root
#   tests/test_tools.py         several scripts that install their tools at the same time
#   tests/test_module           the settings module with eight sets of packages
#   tests/test_forks            every release, with pip and uv
#   tests/test_refresh.py       refresh.sh, with changes that upstream might make
#   tests/test_upstream         upstream's own tests after each commit in patches/upstream
#   tests/test_bundle.py        apply.sh without a package index
#   tests/unit                  the Dockerfiles in docs
#   tests/test_bench.py         a small benchmark
#
# With --environment VENV tests/properties, the tests in tests/properties run on this environment.
# --rest is for root, after an ordinary user's default run, with no file changed. It runs the tests that were skipped,
# and those that check more as root.
# Needs Python 3.9 or later, the Debian packages that tests/packages lists, and a package index for pip and uv.
# If something is missing, the script says what.
#
# Exit status: 0 all passed; 1 a check or a test failed, an argument was wrong, or the run was stopped;
# 2 something is missing, and nothing was run.
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
trap '[ $? = 0 ] || exit 1' EXIT # From here on something is run, so 2 would be wrong, as pytest or coverage has it
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
export COVERAGE_FILE=$root/.cache/coverage/data HYPOTHESIS_STORAGE_DIRECTORY=$root/.cache/hypothesis
[ "$*" = --rest ] || rm -rf "$root/.cache/coverage"
mkdir -p "$root/.cache/coverage"
# Half of the time tests wait for servers: twice as many at a time as there are cores.
tool coverage run -m pytest -n "$(($(nproc) * 2))" --dist worksteal --durations=10 "$@"
# A part of the tests covers a part of the scripts, and so does who is not root.
if [ $# = 0 ] || [ "$*" = --rest ]; then
    tool coverage combine --quiet --append
    [ "$*" = --rest ] && least=100 || least=99
    tool coverage report --fail-under="$least"
fi
