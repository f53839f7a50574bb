#!/usr/bin/env bash
# Writes all patches from the newest ones, and adds new releases; see --help.
set -eu

# shellcheck source=scripts/tools.sh
. "$(dirname "$(readlink -f "$0")")/tools.sh"
use_tools test tests/requirements.txt
run_tool upkeep.refresh "$@"
