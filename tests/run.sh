#!/bin/sh
# Builds and tests everything: sh tests/run.sh [STEP]...   (steps: gcc clang asan tsan oracle browser; all by default)
#
#   gcc      the build in build/ and every test: unit, fuzz corpus, style, API against a real daemon
#   clang    the same sources without a warning
#   asan     unit tests and fuzz corpus with address and undefined-behaviour sanitizers
#   tsan     what runs on several threads, and the daemon over HTTP, with the thread sanitizer
#   oracle   our answers against ONNX Runtime's (needs node, npm and a network, else skipped)
#   browser  the page in a headless browser (needs chromium, else skipped)
#
# Ends with "N passed, N failed, N skipped"; the exit status says whether anything failed. BUILD names another build
# folder, NO_INSTALL=1 installs nothing.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
build=${BUILD:-$root/build}
passed=0 failed=0 skipped=0
started=$(date +%s)

say() {
    echo "== $* ($(($(date +%s) - started)) s)"
}

# step_result NAME STATUS: counts a step that is no meson test; 77 is "skipped"
step_result() {
    case $2 in
    0) passed=$((passed + 1)) ;;
    77)
        skipped=$((skipped + 1))
        echo "SKIP $1"
        ;;
    *)
        failed=$((failed + 1))
        echo "FAIL $1"
        ;;
    esac
}

# configure DIR MESON_OPTION...
configure() {
    dir=$1
    shift
    if [ -f "$dir/build.ninja" ]; then
        timeout 300 meson configure "$dir" "$@" >/dev/null
    else
        timeout 300 meson setup "$dir" "$root" "$@" >"$dir.setup.log" 2>&1 || {
            tail -20 "$dir.setup.log"
            return 1
        }
    fi
}

# compile NAME DIR MESON_OPTION...: counts as one test
compile() {
    name=$1 dir=$2
    shift 2
    say "build $name"
    mkdir -p "$(dirname "$dir")"
    if configure "$dir" "$@" && timeout 1500 ninja -C "$dir" >"$dir.build.log" 2>&1; then
        step_result "build $name" 0
        return 0
    fi
    grep -E 'error|warning|FAILED' "$dir.build.log" 2>/dev/null | head -20
    step_result "build $name" 1
    return 1
}

# count DIR: adds up meson's own log of the tests that ran
count() {
    python3 - "$1/meson-logs/testlog.json" <<'EOF'
import json, re, sys
n = {"passed": 0, "failed": 0, "skipped": 0}
for line in open(sys.argv[1], encoding="utf-8"):
    test = json.loads(line)
    kind = {"OK": "passed", "EXPECTEDFAIL": "passed", "SKIP": "skipped"}.get(test["result"], "failed")
    n[kind] += 1
    if kind == "failed":
        print("FAIL", test["name"], test["result"], file=sys.stderr)
        print("\n".join((test.get("stdout", "") + test.get("stderr", "")).splitlines()[-25:]), file=sys.stderr)
    elif kind == "skipped":
        print("SKIP", test["name"], file=sys.stderr)
    # a case that cmocka left out in a program that passed is left out all the same
    for case in sorted(set(re.findall(r"^\[  SKIPPED \] (test_\w+)", test.get("stdout", "") + test.get("stderr", ""), re.M))):
        n["skipped"] += 1
        print("SKIP", test["name"], case, file=sys.stderr)
print(n["passed"], n["failed"], n["skipped"])
EOF
}

# run_tests NAME DIR SECONDS MESON_TEST_ARGUMENT...
run_tests() {
    name=$1 dir=$2 limit=$3
    shift 3
    say "tests $name"
    rm -f "$dir/meson-logs/testlog.json"
    timeout "$limit" meson test -C "$dir" --no-rebuild --quiet "$@" >"$dir.tests.log" 2>&1
    status=$?
    counts=$(count "$dir") || counts="0 1 0"
    # shellcheck disable=SC2086
    set -- $counts
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
    echo "$name: $1 passed, $2 failed, $3 skipped"
    # cut off, or nothing to run: never silently green
    if [ "$status" != 0 ] && [ "$2" = 0 ]; then
        tail -5 "$dir.tests.log"
        step_result "tests $name" 1
    fi
}

run_gcc() {
    compile gcc "$build" && run_tests gcc "$build" 900
}

run_clang() {
    CC=clang compile clang "$build/check/clang"
}

run_asan() {
    compile asan "$build/check/asan" -Db_sanitize=address,undefined &&
        run_tests asan "$build/check/asan" 900 -t 4 --suite unit --suite fuzz
}

# the thread sanitizer cannot see into libgomp: our own code uses its own threads only
run_tsan() {
    tests=
    compile tsan "$build/check/tsan" -Db_sanitize=thread || return
    for test in $(meson introspect --tests "$build/check/tsan" | python3 -c '
import json, sys
wanted = ("server", "scheduler", "store", "jobs", "daemon", "residency", "judge", "pack", "plan", "stream", "pool", "train",
          "tune")
print(*sorted({t["name"] for t in json.load(sys.stdin) if "bonsaid:api" in t["suite"] or
               "bonsaid:unit" in t["suite"] and t["name"].startswith(wanted)}))'); do
        tests="$tests $test"
    done
    # shellcheck disable=SC2086
    run_tests tsan "$build/check/tsan" 600 -t 5 $tests
}

# node_step NAME FOLDER COMMAND...: after npm has put the packages of tests/FOLDER into the build folder
node_step() {
    name=$1 folder=$build/check/node-$2 source=$root/tests/$2
    shift 2
    command -v node >/dev/null && command -v npm >/dev/null || {
        step_result "$name (node and npm are not installed)" 77
        return
    }
    mkdir -p "$folder"
    cp "$source"/package*.json "$folder/"
    (cd "$folder" && timeout 300 npm install --no-audit --no-fund --ignore-scripts >"$folder.log" 2>&1) || {
        step_result "$name (npm could not install its packages)" 77
        return
    }
    say "$name"
    NODE_FOLDER=$folder BUILD=$build timeout 600 "$@"
    step_result "$name" $?
}

run_oracle() {
    node_step oracle oracle sh tests/oracle/run.sh
}

run_browser() {
    [ "${NO_INSTALL:-}" = 1 ] || sh config/deps.sh browser || echo "chromium could not be installed"
    command -v chromium >/dev/null || {
        step_result "browser (chromium is not installed)" 77
        return
    }
    node_step browser browser sh tests/browser/run.sh
}

if [ "${NO_INSTALL:-}" != 1 ]; then
    sh config/deps.sh test || exit 1
fi
mkdir -p "$build"
for step in "${@:-all}"; do
    case $step in
    all) for each in gcc clang asan tsan oracle browser; do run_$each; done ;;
    gcc | clang | asan | tsan | oracle | browser) run_"$step" ;;
    *)
        echo "run.sh: there is no step '$step'" >&2
        exit 2
        ;;
    esac
done
say "done"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
