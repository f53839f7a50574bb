#!/usr/bin/env bash
# scripts/apply.sh [OPTION] VENV
#
# Patches uvicorn, uvicorn-worker and Gunicorn in a virtual environment, and tests the result there. With
# the patch, Gunicorn's workers reopen their log files on SIGUSR1 without losing a line or a worker.
# The tests start servers of their own from VENV. They use uvicorn's worker classes, if VENV has uvicorn. They use
# Gunicorn's sync, gthread, asgi and gevent in two cases: VENV has no uvicorn, or Gunicorn is patched. A table
# shows what some seconds of rotations did to such a server, before and after the patch. If a test fails, or the
# table shows harm after the patch, VENV is restored (or removed, if this run has made it).
# If root runs this script, the tests run as the owner of VENV. If root owns VENV, they run as the user nobody.
# If that user cannot run them (because it cannot read this clone, for example), root runs them, but only if root
# alone can write to the code in VENV. Otherwise apply.sh stops; --no-tests then patches without tests.
#
#   --no-tests          patch, but do not test
#   --create            if VENV does not exist, make it, with Gunicorn and the newest supported uvicorn[standard]
#   --tests-only        test VENV as it is, and change nothing
#   --no-figures        do not measure the table
#   --verbose           show every test, not only those that fail or cannot run
#   --check VENV ...    show whether each VENV is patched, and which servers still run the old code
#   --check --json      print it as JSON
#   --revert            restore the published files
#   --dry-run           print the diff, and change nothing
#   --only DISTRIBUTION patch only uvicorn, uvicorn-worker or gunicorn (may be repeated)
#   --help              show this
#   --version           show the revision of the patches
#
# Exit status:
#   0      done
#   1      a test failed, the last column of the table shows harm, or --check found a package that is not patched
#   2      nothing was changed, and the message says why; with --check: no environment, or none of these packages in it
#   3      a change failed halfway and could not be undone: run the same command again, or with --revert
#   128+N  ended by signal N; VENV was restored, except after signal 9 (KILL): then run the same command again
# Restart running servers afterwards: Gunicorn's main process (the arbiter) imports its worker class only once.

set -eu

tests=yes
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
    --check | --revert | --dry-run | --no-tests) tests= ;;
    esac
done

# shellcheck source=scripts/tools.sh
. "$(dirname "$(readlink -f "$0")")/tools.sh"
if [ -n "$tests" ]; then
    use_tools run scripts/requirements.txt
else # Nothing else needs any tool, nor what a virtual environment that is active adds to Python.
    TOOLS=$(tools_python run) isolated=-IS
fi
run_tool apply.apply "$@"
