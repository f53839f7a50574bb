#!/usr/bin/env bash
# Write patches/upstream/ anew: from the newest patch of each package, and scripts/upstream/.
set -eu

# shellcheck source=scripts/tools.sh
. "$(dirname "$(readlink -f "$0")")/tools.sh"
use_tools test tests/requirements.txt
run_tool upstream "$@"
