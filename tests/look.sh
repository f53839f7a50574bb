# shellcheck shell=bash disable=SC2154
# Sourced by scripts/test.sh, where root is the repository. look ends it if something is missing that the tests
# need; set_uv has uv reach the package index that pip reaches.

look() {
    local said
    said=$(missing)
    [ -n "$said" ] || return 0
    echo "$said" >&2
    exit 2
}

# What is missing, in a line each
missing() {
    local packages python said
    packages=$(missing_packages)
    [ -z "$packages" ] || echo "test.sh: Debian packages are missing; as root: apt-get install --no-install-recommends$packages"
    python=$(tools_python test 2>&1) || { echo "$python" && return; }
    find_pip "$python" || return 0 # Without python3-venv there is none
    said=$(pip_reaches 2>&1) || echo "test.sh: pip does not reach the package index; check the network, the index and its" \
        "certificate, as for any package: $(grep -o 'Could not fetch.*' <<<"$said" | head -n 1)"
    set_uv
    uv=$(compgen -G "$root/.tools-test-*/bin/uv" | head -n 1)
    [ -n "$uv" ] || return 0 # Before the tools are set up
    said=$(uv_reaches 2>&1) || echo "test.sh: uv does not reach the package index; try UV_INDEX_URL and SSL_CERT_FILE:" \
        "$(grep -v '^ *$' <<<"$said" | tr -d '\n')"
}

missing_packages() {
    local package program
    while read -r package program _; do
        case $package in
        '' | \#*) ;;
        python3-venv) "$program" -c 'import ensurepip' 2>/dev/null || printf ' %s' "$package" ;;
        *) command -v "$program" >/dev/null || printf ' %s' "$package" ;;
        esac
    done <"$root/tests/packages"
}

# Sets pip: that of the tools or, before they are set up, the one that this Python puts into environments.
find_pip() {
    local wheel
    pip=("$(compgen -G "$root/.tools-test-*/bin/python" | head -n 1)" -m pip)
    [ -z "${pip[0]}" ] || return 0
    wheel=$("$1" -c 'import ensurepip, glob, os, sysconfig
places = [sysconfig.get_config_var("WHEEL_PKG_DIR") or "", "/usr/share/python-wheels"]
places.append(os.path.join(os.path.dirname(ensurepip.__file__), "_bundled"))
print([wheel for place in places for wheel in glob.glob(place + "/pip-*.whl")][0])' 2>/dev/null) || return 1
    pip=("$1" "$wheel/pip")
}

# A package of some kilobytes, within a time that is short unless somebody has set another one
PROBE=packaging==25.0
SECONDS_TO_WAIT=${PIP_DEFAULT_TIMEOUT:-2}

pip_reaches() (
    place=$(mktemp -d)
    trap 'rm -r "$place"' EXIT
    env -u PIP_CONSTRAINT -u PIP_TARGET "${pip[@]}" download -vv --disable-pip-version-check --no-cache-dir --no-deps \
        --retries 0 --timeout "$SECONDS_TO_WAIT" --dest "$place" "$PROBE"
)

uv_reaches() {
    UV_HTTP_RETRIES=0 UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-$SECONDS_TO_WAIT} \
        "$uv" pip compile --quiet --no-cache --no-deps - <<<"$PROBE"
}

# uv reads nothing of what pip is set to, and does not trust what the system trusts: so it gets that here.
set_uv() {
    local settings cert index
    settings=$("${pip[@]}" config list 2>/dev/null) || true
    cert=$(setting cert)
    index=$(setting index-url)
    cert=${cert:-${REQUESTS_CA_BUNDLE-}}
    [ -n "${UV_NATIVE_TLS-}" ] || export UV_NATIVE_TLS=1
    [ -n "${SSL_CERT_FILE-}" ] || [ ! -f "$cert" ] || export SSL_CERT_FILE=$cert
    [ -n "${UV_INDEX_URL-}" ] || [ -z "$index" ] || export UV_INDEX_URL=$index
}

# Of pip, from what it lists: variables first, then files
setting() { sed -n "s/^[^.]*[.]$1='\(.*\)'\$/\1/p" <<<"$settings" | head -n 1; }
