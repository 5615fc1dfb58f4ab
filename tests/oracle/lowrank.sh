#!/bin/sh
# Low-rank variants in our engine and in ONNX Runtime, optimised and not: each decomposition, by weights and by samples.
#   sh tests/oracle/lowrank.sh WORKER WORK_DIR     ORT_FOLDER: where ONNX Runtime is installed
# They are float networks: the softmax may differ by 1e-4 at most.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
worker=$1 work=$2
models=$here/../data/models
failed=0 count=0
rm -rf "$work"
mkdir -p "$work"

# noise FILE SHAPE FACTOR SEED
noise() {
    node -e "
const { writeNpy } = require('$here/npy.js');
const shape = [$2];
let s = $4;
const next = () => ((s = (Math.imul(s, 1664525) + 1013904223) >>> 0) >>> 8) / 16777216;
writeNpy('$1', 'float32', shape, Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => next() * $3));"
}

# variant NAME MODEL INPUT FILE DATA STEP
variant() {
    dir=$work/$1
    mkdir -p "$dir/ours"
    echo "[$6]" >"$dir/recipe.json"
    "$worker" run "$dir/recipe.json" --model "$2" --data "$5" -o "$dir/model.onnx" >"$dir/run.txt" 2>&1 || {
        echo "$1: $(tail -1 "$dir/run.txt")"
        failed=1
        return 0
    }
    grep -q '"action":"factorised"' "$dir/run.txt" || { echo "$1: no layer was factorised"; failed=1; }
    "$worker" infer "$dir/model.onnx" --input "$3=$4" --output "$dir/ours" || failed=1
    for level in all disabled; do
        mkdir -p "$dir/$level"
        node "$here/ort.js" "$dir/model.onnx" --input "$3=$4" --level "$level" --output "$dir/$level" || failed=1
        node "$here/agree.js" "$dir/ours/"*.npy "$dir/$level/"*.npy --top1 1 --p99 1e-4 --largest 1e-4 \
            >"$dir/$level.txt" || { failed=1; echo "$1 $level: $(cat "$dir/$level.txt")"; }
    done
    count=$((count + 1))
}

noise "$work/x.npy" 1,1,28,28 255 1
noise "$work/samples.npy" 64,1,28,28 255 2
for decomposition in tucker2 spatial channel cp; do
    for aware in true false; do
        variant "$decomposition-$aware" "$models/mnist-8.onnx" Input3 "$work/x.npy" "$work/samples.npy" \
            "{\"method\":\"lowrank\",\"decomposition\":\"$decomposition\",\"data_aware\":$aware,\"multiple\":2,
              \"rank\":{\"ratio\":0.6},\"break_even\":\"macs\"}"
    done
done
variant then-lut4 "$models/mnist-8.onnx" Input3 "$work/x.npy" "$work/samples.npy" \
    '{"method":"lowrank","multiple":2,"rank":{"ratio":0.6},"break_even":"macs"},
     {"method":"encode","activations":"float","form":{"structure":"dense","code":"lut4","scales":"channel"}}'
echo "lowrank: $count compared"
exit "$failed"
