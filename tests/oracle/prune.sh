#!/bin/sh
# Pruned networks in our engine and in ONNX Runtime, optimised and not: the softmax may differ by 1e-4 at most.
#   sh tests/oracle/prune.sh WORKER WORK_DIR INPUT.npy     ORT_FOLDER: where ONNX Runtime is installed
set -eu
here=$(cd "$(dirname "$0")" && pwd)
worker=$1 work=$2 input=$3
model=$here/../data/models/mnist-8.onnx
failed=0 count=0

# pruned NAME OPTIONS FORM: some layer is stored in that form
pruned() {
    dir=$work/$1
    rm -rf "$dir" && mkdir -p "$dir/ours" "$dir/all" "$dir/disabled"
    echo "[{\"method\":\"prune\",$2}]" >"$dir/recipe.json"
    "$worker" run "$dir/recipe.json" --model "$model" -o "$dir/model.onnx" >"$dir/run.txt" 2>&1 || {
        echo "$dir: $(tail -1 "$dir/run.txt")"
        failed=1
        return 0
    }
    grep -q "\"form\":\"$3\"" "$dir/run.txt" || { failed=1; echo "$1: no layer is $3"; }
    "$worker" infer "$dir/model.onnx" --input "Input3=$input" --output "$dir/ours" || failed=1
    for level in all disabled; do
        node "$here/ort.js" "$dir/model.onnx" --input "Input3=$input" --level "$level" --output "$dir/$level" || failed=1
        node "$here/agree.js" "$dir/ours/"*.npy "$dir/$level/"*.npy --top1 1 --p99 1e-4 --largest 1e-4 \
            >"$dir/$level.txt" || { failed=1; echo "$1 $level: $(cat "$dir/$level.txt")"; }
    done
    count=$((count + 1))
}

mkdir -p "$work"
pruned weight '"granularity":"weight","sparsity":0.8' sparse
pruned half '"granularity":"weight","sparsity":0.3' dense
pruned lamp '"granularity":"weight","criterion":"lamp","sparsity":0.97' sparse
pruned block '"granularity":"block","block":[1,4],"sparsity":0.7' block
pruned nm '"granularity":"nm"' nm
pruned channel '"granularity":"channel","sparsity":0.3' dense
echo "pruned networks: $count agree with ONNX Runtime"
exit $failed
