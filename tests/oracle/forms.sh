#!/bin/sh
# Every weight form in a small network: its file in our engine and in ONNX Runtime, optimised and not.
#   sh tests/oracle/forms.sh WORKER WORK_DIR INPUT.npy     ORT_FOLDER: where ONNX Runtime is installed
# Weights alone are compressed (activations float), so the softmax may differ by 1e-4 at most.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
worker=$1 work=$2 input=$3
model=$here/../data/models/mnist-8.onnx
failed=0 count=0

# form STRUCTURE CODE SCALES [MORE KEYS]
form() {
    dir=$work/$1-$2-$3${4:+-$(printf %s "$4" | tr -cd 'a-z0-9')}
    rm -rf "$dir" && mkdir -p "$dir/ours" "$dir/all" "$dir/disabled"
    printf '[{"method":"encode","activations":"float","form":{"structure":"%s","code":"%s","scales":"%s"}%s}]' \
        "$1" "$2" "$3" "${4:+,$4}" >"$dir/recipe.json"
    "$worker" run "$dir/recipe.json" --model "$model" -o "$dir/model.onnx" >"$dir/run.txt" 2>&1 || {
        echo "$dir: $(tail -1 "$dir/run.txt")"
        failed=1
        return
    }
    "$worker" infer "$dir/model.onnx" --input "Input3=$input" --output "$dir/ours" || failed=1
    for level in all disabled; do
        node "$here/ort.js" "$dir/model.onnx" --input "Input3=$input" --level "$level" --output "$dir/$level" || failed=1
        node "$here/agree.js" "$dir/ours/"*.npy "$dir/$level/"*.npy --top1 1 --p99 1e-4 --largest 1e-4 \
            >"$dir/$level.txt" || { failed=1; echo "$(basename "$dir") $level: $(cat "$dir/$level.txt")"; }
    done
    count=$((count + 1))
}

for code in f32 bf16 f16 s8 u8 s4 lut1 lut2 lut3 lut4 lut5 lut6 lut7 lut8 bit trit; do form dense $code channel; done
for code in s8 lut4 bit; do form dense $code layer; done
for code in s8 s4 lut3; do form dense $code group '"group":4'; done
for code in lut2 lut4 lut5; do form dense $code channel '"entries":"float"'; done
form dense product channel '"dim":5,"words":16'
for code in f32 bf16 s8 s4 lut4 lut5 bit; do form sparse $code channel '"sparsity":0.8'; done
for code in f32 s8 lut4; do form block $code channel '"sparsity":0.6'; done
for code in f32 s8 trit; do form nm $code channel; done
echo "forms: $count compared"
exit "$failed"
