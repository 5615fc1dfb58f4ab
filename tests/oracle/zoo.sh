#!/bin/sh
# Every network of the zoo, trained for an epoch: its file in our engine and in ONNX Runtime, optimised and not.
#   sh tests/oracle/zoo.sh WORKER WORK_DIR     ORT_FOLDER: where ONNX Runtime is installed
# The softmax may differ by 1e-4 at most.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
worker=$1 work=$2
data=$here/../data/datasets/fashion-tiny.tar
failed=0 count=0

# one NETWORK SIZE
one() {
    dir=$work/$1-$2
    rm -rf "$dir" && mkdir -p "$dir/ours" "$dir/all" "$dir/disabled"
    printf '{"network": {"zoo": "%s", "size": %s}, "epochs": 1, "batch": 16, "lr": 0.01}' "$1" "$2" >"$dir/spec.json"
    "$worker" train "$dir/spec.json" --data "$data" -o "$dir/model.onnx" >"$dir/run.txt" 2>&1 || {
        echo "$dir: $(tail -1 "$dir/run.txt")"
        failed=1
        return 0
    }
    node -e "
const { writeNpy } = require('$here/npy.js');
let s = 2;
const next = () => ((s = (Math.imul(s, 1664525) + 1013904223) >>> 0) >>> 8) / 8388608 - 1;
writeNpy('$dir/x.npy', 'float32', [8, 1, $2, $2], Float32Array.from({ length: 8 * $2 * $2 }, next));"
    "$worker" infer "$dir/model.onnx" --input "input=$dir/x.npy" --output "$dir/ours" || failed=1
    for level in all disabled; do
        node "$here/ort.js" "$dir/model.onnx" --input "input=$dir/x.npy" --level "$level" --output "$dir/$level" || failed=1
        node "$here/agree.js" "$dir/ours/logits.npy" "$dir/$level/logits.npy" --top1 1 --p99 1e-4 --largest 1e-4 \
            >"$dir/$level.txt" || { failed=1; echo "$(basename "$dir") $level: $(cat "$dir/$level.txt")"; }
    done
    count=$((count + 1))
}

for name in lenet300 lenet5 mobilenet_v1 mobilenet_v2 resnet20 resnet32 resnet56 shufflenet_v2 squeezenet vgg8; do
    one "$name" 28
done
for name in lenet5 mobilenet_v2 resnet20 shufflenet_v2 squeezenet; do one "$name" 96; done
echo "zoo: $count compared"
exit "$failed"
