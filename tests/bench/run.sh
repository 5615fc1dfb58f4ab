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

# The int8 variant of a net, made by our own worker; calibrated on noise, only time matters here.
need_int8() {
    need_nets "$1"
    if [ "$work/nets/$1.int8.onnx" -nt "$work/nets/$1.onnx" ]; then return; fi
    /usr/bin/python3 -c "
import numpy, sys
numpy.save(sys.argv[1], numpy.random.default_rng(1).standard_normal([8, 3, int(sys.argv[2]), int(sys.argv[2])]).astype('f'))" \
        "$work/nets/$1.npy" "$2"
    echo '[{"method":"quantize","scheme":"int8","observer":"minmax"}]' >"$work/nets/int8.json"
    "$build/bonsai-worker" run "$work/nets/int8.json" --model "$work/nets/$1.onnx" --data "$work/nets/$1.npy" \
        -o "$work/nets/$1.int8.onnx" >/dev/null
}

# int8 NET SIZE BATCH THREADS ROUNDS RUNS NAME: beside ONNX Runtime on the same file
int8() {
    need_ort
    need_int8 "$1" "$2"
    node "$root/tests/bench/interleave.mjs" "$7" "$5" "$6" \
        -- "$build/tests/bench/float_latency" "$work/nets/$1.int8.onnx" "$3" "$4" \
        -- node "$root/tests/bench/ort_latency.mjs" "$work/nets/$1.int8.onnx" "$3" "$4"
}

# int8_gain: beside its float parent in our own engine
int8_gain() {
    need_int8 "$1" "$2"
    node "$root/tests/bench/interleave.mjs" "$7" "$5" "$6" \
        -- "$build/tests/bench/float_latency" "$work/nets/$1.int8.onnx" "$3" "$4" \
        -- "$build/tests/bench/float_latency" "$work/nets/$1.onnx" "$3" "$4"
}

# Eight networks that share no weights, four of them int8: copies of resnet20 with every weight moved a little.
need_eight() {
    need_int8 resnet20 32
    [ -f "$work/nets/eight7.onnx" ] && return
    /usr/bin/python3 -c "
import sys, numpy, onnx
from onnx import numpy_helper
for i in range(8):
    m = onnx.load(sys.argv[1] + '/resnet20' + ('.int8' if i % 2 else '') + '.onnx')
    for t in m.graph.initializer:
        a = numpy_helper.to_array(t)
        if a.ndim == 4:
            t.CopyFrom(numpy_helper.from_array(a + (a.dtype.type(1) if a.dtype == numpy.int8 else numpy.float32(1e-3)) * a.dtype.type(i), t.name))
    onnx.save(m, sys.argv[1] + f'/eight{i}.onnx')" "$work/nets"
}

need_vgg16() {
    [ -f "$work/nets/vgg16.onnx" ] || "$build/tests/bench/make_vgg16" "$work/nets/vgg16.onnx"
}

memory() {
    /usr/bin/python3 "$root/tests/bench/memory.py" "$build" "$@"
}

serving() {
    /usr/bin/python3 "$root/tests/bench/serving.py" "$build" "$1" "${ORT_FOLDER:-}"
}

run_one() {
    case $1 in
    float_resnet20) latency resnet20 1 1 31 40 "$1" ;;
    float_resnet18) latency resnet18 1 1 21 5 "$1" ;;
    float_mobilenet_v2) latency mobilenet_v2 1 1 21 10 "$1" ;;
    int8_resnet20) int8 resnet20 32 1 1 31 40 "$1" ;;
    int8_resnet18) int8 resnet18 224 1 1 21 5 "$1" ;;
    int8_mobilenet_v2) int8 mobilenet_v2 224 1 1 21 10 "$1" ;;
    int8_gain_resnet20) int8_gain resnet20 32 1 1 31 40 "$1" ;;
    int8_gain_resnet18) int8_gain resnet18 224 1 1 21 5 "$1" ;;
    int8_gain_mobilenet_v2) int8_gain mobilenet_v2 224 1 1 21 10 "$1" ;;
    lenet_requests) need_ort && serving requests ;;
    json_parse) "$build/tests/bench/json_parse" ;;
    added_time) serving added ;;
    start_ready) serving start ;;
    big_upload) mkdir -p "$work/nets" && need_vgg16 && memory big "$work/nets/vgg16.onnx" ;;
    eight_resident) need_eight && memory resident "$work"/nets/eight?.onnx ;;
    *)
        echo "unknown benchmark $1; there are: $all" >&2
        exit 2
        ;;
    esac
}

all="float_resnet20 float_resnet18 float_mobilenet_v2 int8_resnet20 int8_resnet18 int8_mobilenet_v2 int8_gain_resnet20 int8_gain_resnet18 int8_gain_mobilenet_v2 lenet_requests json_parse added_time start_ready big_upload eight_resident"
if [ "${1:-all}" = all ]; then
    for name in $all; do run_one "$name"; done
else
    run_one "$1"
fi
