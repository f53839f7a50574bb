#!/usr/bin/env bash
# scripts/bench.sh [--quick | --report]
#
# Measures what log rotation costs and loses: uvicorn's and Gunicorn's workers as published and
# patched, and nginx, side by side. Goes on where an earlier run of the same patches was ended.
#
#   --quick   some of it, in under five minutes; prints it only
#   --report  write docs/benchmarks.md and its plot from what has been measured, and measure nothing
#   --help    this
#
# Needs what the tests need (.ci/run), GNU time, and npm to compare with patch-package.
# Results are kept in .cache/bench.json. Exit status: 0 done; 2 wrong arguments.
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
