# shellcheck shell=bash disable=SC2154
# Sourced by scripts/test.sh, where root is the repository: it ends, with exit status 2, if something is missing that
# the tests need.

look() {
    local said
    said=$(missing)
    [ -z "$said" ] || missed "$said"
}

missed() {
    echo "$*" >&2
    exit 2
}

# What is missing, in a line each
missing() {
    local packages python
    packages=$(missing_packages)
    [ -z "$packages" ] || echo "test.sh: Debian packages are missing; as root: apt-get install --no-install-recommends$packages"
    python=$(tools_python test 2>&1) || echo "$python"
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

# A package of some kilobytes, within a time that is short unless somebody has set another one
look_at_index() {
    local said
    set_uv
    said=$(UV_HTTP_RETRIES=0 UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-2} \
        "$(dirname "$TOOLS")/uv" pip compile --quiet --no-cache --no-deps - 2>&1 <<<packaging==25.0) ||
        missed "test.sh: uv does not reach the package index; check the network, and try UV_INDEX_URL and SSL_CERT_FILE:" \
            "$(grep -v '^ *$' <<<"$said" | tr -d '\n')"
}

# uv reads nothing of what pip is set to, and does not trust what the system trusts: so it gets that here.
set_uv() {
    local settings cert index
    settings=$("$TOOLS" -m pip config list 2>/dev/null) || true
    cert=$(setting cert)
    index=$(setting index-url)
    cert=${cert:-${REQUESTS_CA_BUNDLE-}}
    [ -n "${UV_NATIVE_TLS-}" ] || export UV_NATIVE_TLS=1
    [ -n "${SSL_CERT_FILE-}" ] || [ ! -f "$cert" ] || export SSL_CERT_FILE=$cert
    [ -n "${UV_INDEX_URL-}" ] || [ -z "$index" ] || export UV_INDEX_URL=$index
}

# Of pip, from what it lists: variables first, then files
setting() { sed -n "s/^[^.]*[.]$1='\(.*\)'\$/\1/p" <<<"$settings" | head -n 1; }
