#!/bin/sh
# Find a Python 3.11 or newer (install Debian's where there is none and we may), then run the given script with it.
# usage: sh scripts/python.sh SCRIPT [ARGUMENT...]
set -eu

run_if_new_enough() {
    name=$1
    shift
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then exec "$name" "$@"; fi
}

try_all() {
    for name in python3 python3.14 python3.13 python3.12 python3.11; do run_if_new_enough "$name" "$@"; done
}

try_all "$@"
install="apt-get update && apt-get install -y --no-install-recommends python3"
if command -v apt-get >/dev/null; then
    echo "No Python 3.11 or newer here; installing Debian's."
    if [ "$(id -u)" = 0 ]; then sh -c "$install" || true; else sudo -n sh -c "$install" || true; fi
    hash -r
    try_all "$@"
    echo "Icecap needs Python 3.11 or newer. Install one with:  sudo sh -c '$install'" >&2
else
    echo "Icecap needs Python 3.11 or newer. Install one with:  brew install python@3.13   (or from python.org)" >&2
fi
exit 1
