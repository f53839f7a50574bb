#!/usr/bin/env bash
# Run all the project's tests: `scripts/test.sh [--full] [PYTEST ARGUMENTS]`. Needs nothing but
# Python 3.9 and, for some tests, the Debian packages that .ci/run names.
set -eu

# shellcheck source=scripts/tools.sh
. "$(dirname "$(readlink -f "$0")")/tools.sh"
use_tools test tests/requirements.txt
cd "$root"
# With the tools' uv in front: what the scripts do with uv and what they do without it is for tests
# to choose, not for the machine.
PATH=$(dirname "$TOOLS"):$PATH
export PATH
tool() { "$TOOLS" -m "$@"; }

tool ruff check
tool ruff format --check
tool mypy
shellcheck scripts/*.sh .ci/run

unset PYTHONDONTWRITEBYTECODE # Or each of the many processes compiles all of its modules.
export COVERAGE_FILE=$root/.cache/coverage/data
rm -rf "$root/.cache/coverage"
mkdir -p "$root/.cache/coverage"
# Half of the time tests wait for servers: twice as many at a time as there are cores.
tool coverage run -m pytest -n "$(($(nproc) * 2))" --dist worksteal --durations=10 "$@"
# A part of the tests covers a part of the scripts.
case $* in
"" | --full)
    tool coverage combine --quiet
    tool coverage report
    ;;
esac
if [ "$*" = --full ]; then
    PYTHONPATH=scripts:tests "$TOOLS" tests/matrix.py
fi
