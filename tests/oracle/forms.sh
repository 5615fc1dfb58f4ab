#!/bin/sh
# Every weight form in a small network: its file in our engine and in ONNX Runtime, optimised and not.
#   sh tests/oracle/forms.sh WORKER WORK_DIR INPUT.npy     ORT_FOLDER: where ONNX Runtime is installed
# With weights alone compressed (activations float) the softmax may differ by 1e-4 at most. With activations in 8 bits
# every layer on equal inputs may differ by one step, and the answers as those of any int8 file do (methods.md).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
worker=$1 work=$2 input=$3
model=$here/../data/models/mnist-8.onnx
failed=0 count=0

# encode ACTIVATIONS STRUCTURE CODE SCALES [MORE KEYS]: $dir/model.onnx
encode() {
    dir=$work/$1-$2-$3-$4${5:+-$(printf %s "$5" | tr -cd 'a-z0-9')}
    rm -rf "$dir" && mkdir -p "$dir/ours" "$dir/all" "$dir/disabled" "$dir/layers"
    printf '[{"method":"encode","activations":"%s","form":{"structure":"%s","code":"%s","scales":"%s"}%s}]' \
        "$1" "$2" "$3" "$4" "${5:+,$5}" >"$dir/recipe.json"
    "$worker" run "$dir/recipe.json" --model "$model" --data "$input" -o "$dir/model.onnx" >"$dir/run.txt" 2>&1 || {
        echo "$dir: $(tail -1 "$dir/run.txt")"
        failed=1
        return 1
    }
}

# form STRUCTURE CODE SCALES [MORE KEYS]
form() {
    encode float "$@" || return 0
    "$worker" infer "$dir/model.onnx" --input "Input3=$input" --output "$dir/ours" || failed=1
    for level in all disabled; do
        node "$here/ort.js" "$dir/model.onnx" --input "Input3=$input" --level "$level" --output "$dir/$level" || failed=1
        node "$here/agree.js" "$dir/ours/"*.npy "$dir/$level/"*.npy --top1 1 --p99 1e-4 --largest 1e-4 \
            >"$dir/$level.txt" || { failed=1; echo "$(basename "$dir") $level: $(cat "$dir/$level.txt")"; }
    done
    count=$((count + 1))
}

# form_u8 STRUCTURE CODE [MORE KEYS]
form_u8() {
    encode u8 "$1" "$2" channel ${3:+"$3"} || return 0
    for i in $inputs; do
        "$worker" infer "$dir/model.onnx" --input "Input3=$i" --output "$dir/ours" || failed=1
        node "$here/ort.js" "$dir/model.onnx" --input "Input3=$i" --level all --output "$dir/all" || failed=1
        node "$here/agree.js" "$dir/ours/"*.npy "$dir/all/"*.npy --top1 1 --p99 2e-2 --largest 5e-2 >"$dir/all.txt" ||
            { failed=1; echo "$(basename "$dir") $(basename "$i"): $(cat "$dir/all.txt")"; }
    done
    node "$here/layers.js" "$dir/model.onnx" --input "Input3=$input" --worker "$worker" --work "$dir/layers" \
        >"$dir/layers.txt" || { failed=1; echo "$(basename "$dir"): $(tail -1 "$dir/layers.txt")"; }
    count=$((count + 1))
}

# the given input and one that was not calibrated on
mkdir -p "$work"
node -e "
const { writeNpy } = require('$here/npy.js');
let s = 2;
const next = () => ((s = (Math.imul(s, 1664525) + 1013904223) >>> 0) >>> 8) / 65793;
writeNpy('$work/noise.npy', 'float32', [1, 1, 28, 28], Float32Array.from({ length: 784 }, next));"
inputs="$input $work/noise.npy"

for code in f32 bf16 f16 s8 u8 s4 lut1 lut2 lut3 lut4 lut5 lut6 lut7 lut8 bit trit; do form dense $code channel; done
for code in s8 lut4 bit; do form dense $code layer; done
for code in s8 s4 lut3; do form dense $code group '"group":4'; done
for code in lut2 lut4 lut5; do form dense $code channel '"entries":"float"'; done
form dense product channel '"dim":5,"words":16'
for code in f32 bf16 s8 s4 lut4 lut5 bit; do form sparse $code channel '"sparsity":0.8'; done
for code in f32 s8 lut4; do form block $code channel '"sparsity":0.6'; done
for code in f32 s8 trit; do form nm $code channel; done
for code in s8 lut4 bit trit; do form_u8 dense $code; done
form_u8 dense product '"dim":5,"words":16'
for code in s8 lut4; do form_u8 sparse $code '"sparsity":0.8'; done
for code in s8 bit; do form_u8 block $code '"sparsity":0.6'; done
form_u8 nm s8
echo "forms: $count compared"
exit "$failed"
