#!/bin/sh
# float16 networks in our engine and in ONNX Runtime: with halves outside, and with float outside and a Cast at both ends;
# and a variant compressed from one, whose inputs and outputs stay halves.
#   sh tests/oracle/halves.sh WORKER WORK_DIR     ORT_FOLDER: where ONNX Runtime is installed
# ONNX Runtime rounds between layers where its kernels are of halves, we do not: logits of one size with the network's
# float twin within 1e-2 of their softmax.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
worker=$1 work=$2
model=$here/../data/models/mnist-8.onnx
failed=0
rm -rf "$work"
mkdir -p "$work/float" "$work/half" "$work/keep" "$work/ours"
node -e "
const { writeNpy } = require('$here/npy.js'), { half } = require('$here/halves.js');
let s = 5;
const next = () => ((s = (Math.imul(s, 1664525) + 1013904223) >>> 0) >>> 8) / 65793;
const x = Float32Array.from({ length: 784 }, () => next() / 64);
writeNpy('$work/x.npy', 'float32', [1, 1, 28, 28], x);
writeNpy('$work/half.npy', 'float16', [1, 1, 28, 28], Uint16Array.from(x, half));"
node "$here/halves.js" "$model" "$work/half.onnx"
node "$here/halves.js" "$model" "$work/keep.onnx" --keep-io

# compare NAME INPUT OTHER: our answer to NAME.onnx beside OTHER/*.npy
compare() {
    rm -f "$work/ours/"*
    "$worker" infer "$work/$1.onnx" --input "Input3=$2" --output "$work/ours" || failed=1
    printf '%s, %s: ' "$1" "$3"
    node "$here/agree.js" "$work/ours/"*.npy "$work/$3/"*.npy --top1 1 --p99 1e-2 --largest 1e-2 || failed=1
}

node "$here/ort.js" "$model" --input "Input3=$work/x.npy" --output "$work/float"
node "$here/ort.js" "$work/half.onnx" --input "Input3=$work/half.npy" --output "$work/half"
node "$here/ort.js" "$work/keep.onnx" --input "Input3=$work/x.npy" --output "$work/keep"
compare half "$work/half.npy" half
compare half "$work/half.npy" float
compare keep "$work/x.npy" keep
compare keep "$work/x.npy" float

for step in '{"method":"quantize","scheme":"int8"}' '{"method":"encode","form":{"structure":"dense","code":"lut5","scales":"channel"}}'; do
    printf '[%s]' "$step" >"$work/recipe.json"
    "$worker" run "$work/recipe.json" --model "$work/half.onnx" --data "$work/x.npy" -o "$work/variant.onnx" \
        >"$work/run.txt" 2>&1 || { tail -1 "$work/run.txt"; failed=1; continue; }
    rm -rf "$work/variant" && mkdir "$work/variant"
    node "$here/ort.js" "$work/variant.onnx" --input "Input3=$work/half.npy" --output "$work/variant" || failed=1
    compare variant "$work/half.npy" variant
done
exit "$failed"
