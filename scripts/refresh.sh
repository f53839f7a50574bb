#!/usr/bin/env bash
# Keep the patches in step with what upstream publishes; see --help.
set -eu

# shellcheck source=scripts/tools.sh
. "$(dirname "$0")/tools.sh"
use_tools test tests/requirements.txt
export PYTHONPATH=$root/scripts
exec "$TOOLS" -m usr1.refresh "$@"
