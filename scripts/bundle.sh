#!/usr/bin/env bash
# scripts/bundle.sh FILE.tar.gz [PYTHON ...]
#
# Makes one file with apply.sh and all that it needs, for machines without a package index. Unpack it there, and
# run the scripts/apply.sh in it.
# Name a PYTHON, such as python3.8, for each Python version on those machines. It must be installed on this
# machine. The default is $PYTHON. If that is not set, it is a Python on this machine, if possible 3.9 or later.
# The other machines must be like this one: Linux on the same processor architecture.
#
# Exit status: 0 done; 2 nothing was made: the message says why.
set -eu

case ${1-} in -h | --help)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac

# shellcheck source=scripts/tools.sh
. "$(dirname "$(readlink -f "$0")")/tools.sh"
case ${1-} in "" | -*) fail "expected the name of a file to make, found ${1:-none}; see scripts/bundle.sh --help" ;; esac
file=$1
shift
[ $# -gt 0 ] || set -- "$(tools_python run)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=$work/uvicorn-usr1
mkdir -p "$bundle/tests"
cp -R "$root"/{LICENSE,*.md,docs,patches,scripts,setup.cfg} "$bundle"
cp -R "$root"/tests/{conftest.py,properties} "$bundle/tests"
find "$bundle" -name __pycache__ -prune -exec rm -r {} +
for python; do
    rm -rf "$work/venv"
    said=$("$python" -m venv "$work/venv" 2>&1) ||
        fail "cannot make an environment with $python (on Debian: apt install python3-venv): $(tail -n 3 <<<"$said")"
    said=$(
        pip_of "$work/venv" install "$OLD_PIP" &&
            pip_of "$work/venv" download --only-binary :all: --dest "$bundle/wheels" \
                "$OLD_PIP" -r "$root/scripts/requirements.txt"
    ) || fail "pip cannot download the tools for $python: $(tail -n 3 <<<"$said")"
done
tar -czf "$work/bundle" -C "$work" uvicorn-usr1
cp "$work/bundle" "$file" || fail "cannot write $file; name another one, or make room there"
