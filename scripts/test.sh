#!/usr/bin/env bash
# Run all the project's tests: `scripts/test.sh [--full] [PYTEST ARGUMENTS]`. Needs nothing but
# Python 3.9 and, for some tests, the Debian packages that .ci/run names.
set -eu

# shellcheck source=scripts/tools.sh
. "$(dirname "$(readlink -f "$0")")/tools.sh"
use_tools test tests/requirements.txt
cd "$root"
tool() { "$TOOLS" -m "$@"; }

tool ruff check
tool ruff format --check
tool mypy
"$(dirname "$TOOLS")/shellcheck" scripts/*.sh .ci/run

export COVERAGE_FILE=$root/.cache/coverage/data
rm -rf "$root/.cache/coverage"
mkdir -p "$root/.cache/coverage"
tool coverage run -m pytest -n 2 --dist worksteal "$@"
tool coverage combine --quiet
tool coverage report

case " $* " in
*" --full "*) PYTHONPATH=scripts:tests "$TOOLS" tests/matrix.py ;;
esac
