# shellcheck shell=bash
# Sourced by the scripts. use_tools NAME REQUIREMENTS makes the environment .tools-NAME
# beside them, anew whenever the requirements change, and sets TOOLS to its Python.

if [ -z "${BASH_VERSION:-}" ]; then
    echo "${0##*/}: expected bash, found another shell; run it as it is, without sh in front" >&2
    exit 2
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 2
}

tools_python() {
    local python
    for python in ${PYTHON:+"$PYTHON"} python3 python3.{13,12,11,10,9} "$HOME"/.pyenv/versions/*/bin/python3; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    fail "expected Python 3.9 or later for the tools, found none; install one, or name it: PYTHON=/path/to/python3"
}

use_tools() {
    local home=$root/.tools-$1 requirements=$root/$2 python new log
    TOOLS=$home/bin/python
    # What a requirements file includes lies in the other one: compare both.
    if [ -x "$TOOLS" ] && cat "$requirements" "$root/scripts/requirements.txt" | cmp -s - "$home/requirements"; then
        return
    fi
    python=$(tools_python) || exit 2
    new=$(mktemp -d "$home.XXXXXX") || fail "cannot write to $root, where the tools' environment goes"
    log=$new/log
    # shellcheck disable=SC2064  # now, while new is in scope
    trap "rm -rf '$new'" EXIT
    printf 'Setting up the tools in %s (once) ...\n' "$home" >&2
    if command -v uv >/dev/null; then
        uv venv --quiet --python "$python" "$new/env" >"$log" 2>&1 &&
            uv pip install --quiet --python "$new/env/bin/python" -r "$requirements" >>"$log" 2>&1
    else
        "$python" -m venv "$new/env" >"$log" 2>&1 &&
            "$new/env/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements" >>"$log" 2>&1
    fi || fail "cannot make the tools' environment (on Debian: apt install python3-venv): $(tail -n 3 "$log")"
    cat "$requirements" "$root/scripts/requirements.txt" >"$new/env/requirements"
    # Only this rename makes it visible: an environment is whole, or not there.
    rm -rf "$home"
    mv -T "$new/env" "$home"
    rm -rf "$new"
    trap - EXIT
}

# run_tool MODULE ARGUMENTS ... runs a module of scripts/usr1. Isolated: python -m would import
# from the directory that this is run in, whatever lies there.
run_tool() {
    exec "$TOOLS" -I -c 'import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("usr1." + sys.argv.pop(1), run_name="__main__", alter_sys=True)' "$root/scripts" "$@"
}
