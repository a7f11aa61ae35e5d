#!/bin/sh
# Build the kernels with AddressSanitizer and UndefinedBehaviorSanitizer in a copy and run the native tests there.
# Usage: scripts/sanitize.sh [pytest arguments]; PYTHON chooses the interpreter (default .venv/bin/python).
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -R "$root/native" "$root/tests" "$root/setup.py" "$root/pyproject.toml" "$copy/"
[ -f "$root/README.md" ] && cp "$root/README.md" "$copy/"
[ -f "$root/LICENSE" ] && cp "$root/LICENSE" "$copy/"
mkdir -p "$copy/scripts" && cp "$root/scripts/make_tables.py" "$copy/scripts/"
rm -f "$copy"/native/*.so
cd "$copy"
# -O1 keeps the checks that -O3 would prove away; no recovery, so that the first finding fails the run.
CC=gcc CFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" \
    LDFLAGS="-fsanitize=address,undefined" "$python" setup.py -q build_ext --inplace >build.log 2>&1 || { cat build.log; exit 1; }
# --noconftest: the services of the other tests have no place here.
if [ $# -eq 0 ]; then set -- -q -p no:cacheprovider -p no:randomly --noconftest --ignore=tests/native/test_influx.py tests/native; fi
# PYTHONMALLOC: with Python's own allocator an overrun inside its arenas goes unseen. Leaks are CPython's own at exit.
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" PYTHONMALLOC=malloc \
    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 ICECAP_REQUIRE_NATIVE=1 ICECAP_SANITIZED=1 "$python" -m pytest "$@"
