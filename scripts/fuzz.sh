#!/bin/sh
# Coverage-guided fuzzing of every decoder of native/, protocol/ and edge/, SECONDS in all (default 20), with AddressSanitizer.
# Needs clang and the atheris wheel; a crash leaves its input in FUZZ_ARTIFACTS (default build/fuzz) and the run fails.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
seconds=${1:-20}
python=${PYTHON:-$root/.venv/bin/python}
artifacts=${FUZZ_ARTIFACTS:-$root/build/fuzz}
command -v clang >/dev/null || { echo "clang is needed: apt-get install clang" >&2; exit 1; }
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir -p "$artifacts"
cp -R "$root/native" "$root/protocol" "$root/edge" "$root/setup.py" "$root/pyproject.toml" "$copy/"
mkdir -p "$copy/tests" && cp -R "$root/tests/fuzz" "$copy/tests/"
[ -f "$root/README.md" ] && cp "$root/README.md" "$copy/"
rm -f "$copy"/native/*.so
cd "$copy"
CC=clang CFLAGS="-O1 -g -fsanitize=address,fuzzer-no-link" LDSHARED="clang -shared" \
    "$python" setup.py -q build_ext --inplace >build.log 2>&1 || { cat build.log; exit 1; }
preload=$("$python" -c "import atheris, pathlib; print(pathlib.Path(atheris.__file__).parent.parent / 'asan_with_fuzzer.so')")
targets="fuzz_deltapack fuzz_deltapack_session fuzz_state fuzz_wire fuzz_token fuzz_formats"
share=$((seconds / 6)); [ "$share" -gt 0 ] || share=1
for target in $targets; do
    mkdir -p "corpus/$target"
    # PYTHONMALLOC=malloc: without it the sanitizer does not see Python's buffers at all.
    LD_PRELOAD="$preload" PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 ICECAP_REQUIRE_NATIVE=1 PYTHONPATH="$copy" \
        "$python" "tests/fuzz/$target.py" "corpus/$target" -max_total_time="$share" -artifact_prefix="$artifacts/$target-" \
        -max_len=4096 -print_final_stats=1 2>"$target.log" || { tail -40 "$target.log"; exit 1; }
    printf '%s: ' "$target"
    sed -n 's/^stat::number_of_executed_units: */executions /p' "$target.log"
done
