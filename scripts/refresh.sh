#!/usr/bin/env bash
# Keep the patches in step with what upstream publishes; see --help.
set -eu

# shellcheck source=scripts/tools.sh
. "$(dirname "$(readlink -f "$0")")/tools.sh"
use_tools test tests/requirements.txt
run_tool upkeep.refresh "$@"
