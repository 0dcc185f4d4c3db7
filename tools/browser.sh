#!/usr/bin/env bash
# Sees to it that the browser tests find a Chromium. Prints nothing when there is one.
set -euo pipefail

found() {
    local name
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        command -v "$name" >/dev/null 2>&1 && return 0
    done
    [ -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" ]
}

found && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing Chromium for the browser tests" >&2
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    if { apt-get update && apt-get install -y --no-install-recommends chromium fonts-dejavu-core; } >"$log" 2>&1; then
        rm -f "$log"
        found && exit 0
    fi
    tail -n 5 "$log" >&2 2>/dev/null || true
fi

echo "No Chromium or Chrome was found, so the browser tests can't run." >&2
echo "Install one (Debian, Ubuntu: sudo apt-get install chromium; Fedora: sudo dnf install chromium; macOS: Google Chrome)." >&2
[ -z "${CI:-}" ] # in CI that is a fault; elsewhere the browser tests skip
