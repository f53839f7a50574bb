#!/usr/bin/env bash
# Build wheels of the forks, for an index, or a source tree to read; see --help.
set -eu

# shellcheck source=scripts/tools.sh
. "$(dirname "$0")/tools.sh"
use_tools run scripts/requirements.txt
export PYTHONPATH=$root/scripts
exec "$TOOLS" -m usr1.build_fork "$@"
