#!/bin/sh
# Every scheme of quantize that is done after training, in our engine and in ONNX Runtime, on inputs that were not
# calibrated on.
#   sh tests/oracle/schemes.sh WORKER WORK_DIR INPUT.npy     ORT_FOLDER: where ONNX Runtime is installed
set -eu
here=$(cd "$(dirname "$0")" && pwd)
worker=$1 work=$2 input=$3
model=$here/../data/models/mnist-8.onnx
failed=0 count=0

# scheme LARGEST STEP
scheme() {
    dir=$work/$count
    rm -rf "$dir" && mkdir -p "$dir/ours" "$dir/all" "$dir/disabled"
    printf '[{"method":"quantize",%s}]' "$2" >"$dir/recipe.json"
    "$worker" run "$dir/recipe.json" --model "$model" --data "$input" -o "$dir/model.onnx" >"$dir/run.txt" 2>&1 ||
        { echo "$2: $(tail -1 "$dir/run.txt")"; failed=1; return; }
    "$worker" infer "$dir/model.onnx" --input "Input3=$work/noise.npy" --output "$dir/ours" || failed=1
    for level in all disabled; do
        node "$here/ort.js" "$dir/model.onnx" --input "Input3=$work/noise.npy" --level "$level" --output "$dir/$level" || failed=1
        node "$here/agree.js" "$dir/ours/"*.npy "$dir/$level/"*.npy --top1 1 --p99 "$1" --largest "$1" >"$dir/$level.txt" ||
            { failed=1; echo "$2 $level: $(cat "$dir/$level.txt")"; }
    done
    count=$((count + 1))
}

mkdir -p "$work"
node -e "
const { writeNpy } = require('$here/npy.js');
let s = 2;
const next = () => ((s = (Math.imul(s, 1664525) + 1013904223) >>> 0) >>> 8) / 65793;
writeNpy('$work/noise.npy', 'float32', [1, 1, 28, 28], Float32Array.from({ length: 784 }, next));"

for bits in 2 3 4 5 6 7 8; do
    scheme 1e-4 "\"scheme\":\"fixed\",\"bits\":$bits,\"activations\":\"float\""
    scheme 5e-2 "\"scheme\":\"fixed\",\"bits\":$bits"
done
scheme 5e-2 '"scheme":"fixed","bits":3,"adaround":true,"equalize":true'
scheme 5e-2 '"scheme":"int8","observer":"entropy","equalize":true'
scheme 1e-4 '"scheme":"int4","activations":"float"'
scheme 5e-2 '"scheme":"int4","adaround":true'
scheme 5e-2 '"scheme":"mixed","budget":{"bytes":0.17}'
scheme 1e-2 '"scheme":"dynamic"'
scheme 1e-4 '"scheme":"bf16"'
for bits in 1 2 3 4 5 8; do
    scheme 1e-4 "\"scheme\":\"codebook\",\"bits\":$bits,\"codebook\":{\"entries\":\"float\"}"
    scheme 1e-4 "\"scheme\":\"codebook\",\"bits\":$bits,\"activations\":\"float\""
    scheme 5e-2 "\"scheme\":\"codebook\",\"bits\":$bits"
done
for entries in float int8; do
    scheme 1e-4 "\"scheme\":\"codebook\",\"activations\":\"float\",\"codebook\":{\"scope\":\"channel\",\"entries\":\"$entries\"}"
done
scheme 5e-2 '"scheme":"codebook","codebook":{"scope":"channel"}'
words='"product":{"dim":5,"words":16}'
for scheme in '"scheme":"product"' '"scheme":"residual","bits":2'; do
    scheme 1e-4 "$scheme,\"activations\":\"float\",$words"
    scheme 5e-2 "$scheme,$words"
done
echo "schemes: $count compared"
exit "$failed"
