#!/usr/bin/env bash
# Write patches/upstream/ anew: from the newest patch of each package, and scripts/upstream/.
set -eu

# shellcheck source=scripts/tools.sh
. "$(dirname "$0")/tools.sh"
use_tools test tests/requirements.txt
export PYTHONPATH=$root/scripts
exec "$TOOLS" -m usr1.upstream "$@"
