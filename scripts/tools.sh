# shellcheck shell=bash
# For the bash scripts, which source this file. use_tools NAME REQUIREMENTS makes the environment
# .tools-NAME-HASH in the clone, and sets TOOLS to its Python. When the requirements change, it makes a new one.

if [ -z "${BASH_VERSION:-}" ]; then
    echo "${0##*/}: expected bash, found another shell; run it as it is, without sh in front" >&2
    exit 2
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# A dot each second, for as long as this shell is there
dots() {
    while sleep 1 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do printf .; done >&2 &
    dots=$!
    disown
}

quiet() {
    [ -n "${dots-}" ] || return 0
    kill "$dots"
    dots=
    echo >&2
}

fail() {
    quiet
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 2
}

# Prints the path of a Python 3.6 or later, if possible of 3.9 or later, which the newest tools need. The tools
# for tests always need 3.9 or later.
tools_python() {
    local python minor oldest=6
    [ "$1" != test ] || oldest=9
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3 python3.{15,14,13,12,11,10,9,8,7,6} "${HOME:-}"/.pyenv/versions/*/bin/python3
    fi
    for minor in 9 "$oldest"; do
        for python; do
            if "$python" -ISc "import sys; sys.exit(sys.version_info < (3, $minor))" 2>/dev/null; then
                command -v "$python"
                return
            fi
        done
    done
    fail "expected Python 3.$oldest or later for the tools, found ${PYTHON:-none}; install one, or name it: PYTHON=/path/to/python3"
}

# The pip that comes with an old Python cannot install today's wheels.
OLD_PIP='pip==21.3.1; python_version < "3.9"'

# pip_of ENVIRONMENT ARGUMENTS ... runs the pip of an environment, whatever the user has set for others.
pip_of() {
    local python=$1/bin/python command=$2
    shift 2
    env -u PIP_CONSTRAINT -u PIP_NO_DEPS -u PIP_TARGET \
        "$python" -m pip "$command" --quiet --disable-pip-version-check "$@" 2>&1
}

use_tools() {
    local requirements=$root/$2 hash home python said
    # A requirements file may include another one, so the hash is of all. cksum, and below Python's rename, also work
    # where the commands are not GNU's.
    hash=$({ cat "$requirements" "$root"/scripts/requirements*.txt && echo "${PYTHON:-}"; } | cksum)
    home=$root/.tools-$1-${hash%% *}
    TOOLS=$home/bin/python
    [ ! -x "$TOOLS" ] || return 0
    [ -w "$root" ] ||
        fail "cannot write to $root, where the tools' environment goes; run this once as a user who may, or in a clone of your own"
    python=$(tools_python "$1") || exit 2
    new=$home.$$
    printf 'Setting up the tools in %s (once) ...\n' "$home" >&2
    dots
    trap 'quiet; rm -rf "$new"' EXIT
    said=$("$python" -m venv "$new" 2>&1) ||
        fail "cannot make the tools' environment (on Debian: apt install python3-venv): $(tail -n 3 <<<"$said" | paste -sd ' ')"
    missing="check the network, the index and its certificate, as for any package; without an index, see scripts/bundle.sh"
    if [ -d "$root/wheels" ]; then # This is a bundle.
        export PIP_NO_INDEX=1 PIP_FIND_LINKS=$root/wheels
        missing="$root/wheels has none for this Python: name it to scripts/bundle.sh where there is an index"
    fi
    said=$(pip_of "$new" install "$OLD_PIP" && pip_of "$new" install -r "$requirements") ||
        fail "pip cannot install the tools; $missing: $(tail -n 3 <<<"$said")"
    # Only this rename makes it visible: an environment is whole, or not there. If another run was
    # faster, its environment is as good, and in use.
    "$python" -c 'import os, sys; os.rename(*sys.argv[1:])' "$new" "$home" 2>/dev/null || [ -x "$TOOLS" ] || fail "cannot rename $new to $home; if there is something at $home, remove it"
    rm -rf "$new"
    quiet
    trap - EXIT
}

# run_tool MODULE ARGUMENTS ... runs a module of scripts/usr1. Isolated: python -m would import
# from the directory that this is run in, whatever lies there.
run_tool() {
    exec "$TOOLS" "${isolated:--I}" -c 'import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("usr1." + sys.argv.pop(1), run_name="__main__", alter_sys=True)' "$root/scripts" "$@"
}
