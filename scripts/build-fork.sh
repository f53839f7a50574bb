#!/usr/bin/env bash
# Builds wheels of the forks, for an index; see --help.
set -eu

# shellcheck source=scripts/tools.sh
. "$(dirname "$(readlink -f "$0")")/tools.sh"
use_tools run scripts/requirements.txt
run_tool forks.build_fork "$@"
