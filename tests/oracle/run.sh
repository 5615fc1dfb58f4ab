#!/bin/sh
# int8 variants in our engine and in ONNX Runtime: whole test sets, and every layer on equal inputs; and every
# weight form (forms.sh), every scheme of quantize (schemes.sh), float16 networks (halves.sh), low-rank variants
# (lowrank.sh), and two methods after each other (pairs.py).
#   sh tests/oracle/run.sh [MODEL …]     BUILD: the build folder; BONSAI_SHARED: a folder with models and data sets
# Without BONSAI_SHARED: the shipped mnist-8 on noise. ONNX Runtime is installed on demand (npm ci) into the build folder.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD:-$root/build}
work=$build/oracle
here=$root/tests/oracle
worker=$build/bonsai-worker
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
mkdir -p "$work"
ORT_FOLDER=${ORT_FOLDER:-${NODE_FOLDER:-$work}}
export ORT_FOLDER
if [ ! -d "$ORT_FOLDER/node_modules/onnxruntime-node" ]; then
    cp "$here/package.json" "$here/package-lock.json" "$ORT_FOLDER"
    (cd "$ORT_FOLDER" && npm ci --no-audit --no-fund --ignore-scripts >/dev/null)
fi
failed=0

# check NAME FILE INPUT X LABELS FEW: X is the test set, FEW some of it; calibrated on FEW
check() {
    dir=$work/$1
    rm -rf "$dir" && mkdir -p "$dir/ours" "$dir/oracle" "$dir/layers"
    echo '[{"method":"quantize","scheme":"int8"}]' >"$dir/recipe.json"
    "$worker" run "$dir/recipe.json" --model "$2" --data "$6" -o "$dir/int8.onnx" >/dev/null
    "$worker" infer "$dir/int8.onnx" --input "$3=$4" --output "$dir/ours"
    node "$here/ort.js" "$dir/int8.onnx" --input "$3=$4" --batch 50 --output "$dir/oracle"
    out=$(basename "$(find "$dir/ours" -name '*.npy' | head -1)")
    printf '%s: ' "$1"
    node "$here/agree.js" "$dir/ours/$out" "$dir/oracle/$out" ${5:+--labels "$5"} || failed=1
    node "$here/layers.js" "$dir/int8.onnx" --input "$3=$6" --worker "$worker" --work "$dir/layers" \
        >"$dir/layers.txt" || failed=1
    printf '%s: ' "$1"
    tail -1 "$dir/layers.txt"
}

# pictures NAME STEP: a test set and some of it
pictures() {
    set_file=$work/$1.x.npy
    labels=$work/$1.y.npy
    few=$work/$1.few.x.npy
    [ -f "$set_file" ] || /usr/bin/python3 "$here/pictures.py" "$1" "$BONSAI_SHARED/datasets" "$work/$1" 1
    [ -f "$few" ] || /usr/bin/python3 "$here/pictures.py" "$1" "$BONSAI_SHARED/datasets" "$work/$1.few" "$2"
}

one() {
    case $1 in
    mnist-8)
        node -e "
const { writeNpy } = require('$here/npy.js');
let s = 1;
const x = Float32Array.from({ length: 64 * 784 }, () => ((s = (Math.imul(s, 1664525) + 1013904223) >>> 0) >>> 8) / 65793);
writeNpy('$work/noise.npy', 'float32', [64, 1, 28, 28], x);
writeNpy('$work/noise1.npy', 'float32', [1, 1, 28, 28], x.subarray(0, 784));"
        check mnist-8 "$root/tests/data/models/mnist-8.onnx" Input3 "$work/noise1.npy" "" "$work/noise1.npy"
        sh "$here/forms.sh" "$worker" "$work/forms" "$work/noise1.npy" || failed=1
        sh "$here/schemes.sh" "$worker" "$work/schemes" "$work/noise1.npy" || failed=1
        sh "$here/zoo.sh" "$worker" "$work/zoo" || failed=1
        sh "$here/halves.sh" "$worker" "$work/halves" || failed=1
        sh "$here/lowrank.sh" "$worker" "$work/lowrank" || failed=1
        python3 "$here/pairs.py" "$worker" "$work/pairs" || failed=1
        sh "$here/prune.sh" "$worker" "$work/prune" "$work/noise1.npy" || failed=1
        ;;
    lenet5_fashion)
        pictures fashion 40
        check "$1" "$BONSAI_SHARED/models/user/$1.onnx" input "$set_file" "$labels" "$few"
        ;;
    resnet20_cifar10 | resnet20_cifar10_bnfused)
        pictures cifar10 50
        check "$1" "$BONSAI_SHARED/models/user/$1.onnx" input "$set_file" "$labels" "$few"
        ;;
    nsfwjs-mobilenetv2)
        pictures clothing 40
        check "$1" "$BONSAI_SHARED/models/public/$1.onnx" input "$set_file" "" "$few"
        ;;
    ppocr-cls)
        pictures textdir 20
        check "$1" "$BONSAI_SHARED/models/public/$1.onnx" x "$set_file" "$labels" "$few"
        ;;
    *)
        echo "unknown model $1" >&2
        exit 2
        ;;
    esac
}

all=mnist-8
[ -z "${BONSAI_SHARED:-}" ] ||
    all="$all lenet5_fashion resnet20_cifar10 resnet20_cifar10_bnfused nsfwjs-mobilenetv2 ppocr-cls"
for model in ${*:-$all}; do one "$model"; done
exit "$failed"
