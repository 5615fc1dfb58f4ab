#!/bin/sh
# Benchmarks: sh tests/bench/run.sh NAME|all. Each ends with a line "NAME ratio=R", above 1: we are ahead.
# Peers are installed on demand (npm) into the build folder, never at build time.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD:-$root/build}
work=$build/bench
mkdir -p "$work"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

need_ort() {
    ORT_FOLDER=${ORT_FOLDER:-$work/ort}
    export ORT_FOLDER
    if [ ! -d "$ORT_FOLDER/node_modules/onnxruntime-node" ]; then
        mkdir -p "$ORT_FOLDER"
        (cd "$ORT_FOLDER" && npm init -y >/dev/null && npm install --no-audit --no-fund onnxruntime-node@1.30.0 >/dev/null)
    fi
}

need_nets() {
    /usr/bin/python3 "$root/tests/bench/make_nets.py" "$work/nets" "$@"
}

# latency NET BATCH THREADS ROUNDS RUNS NAME
latency() {
    need_ort
    need_nets "$1"
    node "$root/tests/bench/interleave.mjs" "$6" "$4" "$5" \
        -- "$build/tests/bench/float_latency" "$work/nets/$1.onnx" "$2" "$3" \
        -- node "$root/tests/bench/ort_latency.mjs" "$work/nets/$1.onnx" "$2" "$3"
}

run_one() {
    case $1 in
    float_resnet20) latency resnet20 1 1 31 40 "$1" ;;
    float_resnet18) latency resnet18 1 1 21 5 "$1" ;;
    float_mobilenet_v2) latency mobilenet_v2 1 1 21 10 "$1" ;;
    *)
        echo "unknown benchmark $1; there are: $all" >&2
        exit 2
        ;;
    esac
}

all="float_resnet20 float_resnet18 float_mobilenet_v2"
if [ "${1:-all}" = all ]; then
    for name in $all; do run_one "$name"; done
else
    run_one "$1"
fi
