#!/usr/bin/env bash
# scripts/apply.sh [OPTION] VENV
#
# Patches what is installed of uvicorn, uvicorn-worker and gunicorn in a virtual environment, so
# that gunicorn's workers reopen their log files on SIGUSR1 without losing a line or a worker, and
# proves it there with the signal property tests, of uvicorn's worker classes and of Gunicorn's own
# (sync, gthread, asgi, gevent). A table says what rotations did to a server of VENV's for some
# seconds, before and after. If a test fails, or the patched server loses a line, VENV is put back as
# it was found.
# Started by root, the tests run as the owner of VENV, or as nobody; as root only where that user cannot
# run them, and nobody else may write to what is run.
#
#   --no-tests          only patch
#   --create            if there is no VENV, make it, with the newest supported uvicorn[standard] and gunicorn
#   --tests-only        only test VENV as it is
#   --no-figures        leave out the table
#   --verbose           show every test, not only those that fail
#   --check VENV ...    say what state each VENV is in, and which servers still run the old code
#   --check --json      the same as JSON
#   --revert            put back what was installed
#   --dry-run           print the diff that would be applied
#   --only DISTRIBUTION only this one of them (repeatable)
#   --help              this
#   --version           which revision of the patches this applies
#
# Exit status: 0 done; 1 a property failed, or --check found something unpatched; 2 nothing was
# done, and nothing changed, or --check found no environment, or nothing there to patch; 3 a change
# failed half-way and could not be undone: run it again; 128+N ended by signal N, and VENV was put
# back.
# Running servers must be restarted: an arbiter imports the worker class once.

set -eu

for argument; do
    case $argument in -h | --help)
        sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
        exit
        ;;
    --version)
        revisions=$(sed -n 's/^Revision: //p' "$(dirname "$(readlink -f "$0")")"/../patches/*/*.patch)
        echo "uvicorn-usr1, patches at revision $(echo "$revisions" | sort -n | tail -n 1)"
        exit
        ;;
    esac
done

# shellcheck source=scripts/tools.sh
. "$(dirname "$(readlink -f "$0")")/tools.sh"
use_tools run scripts/requirements.txt
run_tool apply.apply "$@"
