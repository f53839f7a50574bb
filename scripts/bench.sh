#!/usr/bin/env bash
# scripts/bench.sh [--quick | --report]
#
# Measures what log rotation costs and loses, with unpatched and patched workers of uvicorn and
# Gunicorn, side by side. Writes the results to docs/benchmarks.md and docs/benchmark-results.md. If a
# run was interrupted, the next run of the same patches continues it.
#
#   --quick   measure a part, in under five minutes, print it, and keep nothing
#   --report  measure nothing; write the results of earlier runs
#   --help    show this
#
# Needs what the tests need (see scripts/test.sh --help).
# Keeps its results in .cache/bench.json.
# Exit status: 0 done; 2 an argument was wrong, or something is missing.
set -eu

case $* in
-h | --help)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit
    ;;
"" | --quick | --report) ;;
*)
    echo "bench.sh: expected nothing, --quick or --report, found $*; see scripts/bench.sh --help" >&2
    exit 2
    ;;
esac

# shellcheck source=scripts/tools.sh
. "$(dirname "$(readlink -f "$0")")/tools.sh"
use_tools test tests/requirements.txt
cd "$root"
PATH=$(dirname "$TOOLS"):$PATH PYTHONPATH=scripts:tests exec "$TOOLS" -m bench.run "$@"
