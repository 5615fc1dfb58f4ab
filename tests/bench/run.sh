#!/bin/sh
# Benchmarks: sh tests/bench/run.sh NAME|all. Each ends with a line "NAME ratio=R", above 1: we are ahead.
# Peers are installed on demand (npm) into the build folder, never at build time.
#
#   float_NET, int8_NET        beside ONNX Runtime on the same file: batch 1 and 8, 1 and 2 threads; ratio is that of
#                              the default table's kernels, "tuned" of those chosen by timing (Winograd among them)
#   float_NET_bB_tT, int8_…    one setting of it
#   float_all, int8_all        all nets, all settings: geometric mean and the lowest
#   load_KIND_NET              from the file to the first answer, and memory; "resident" and "peak" are the peer's by ours
#   load_first_answer          all of them
#   compressed                 resnet50 in forms stored small, the same files in both: time, loading, memory
#   eight_forms                forms of resnet50 in one daemon: bytes counted, measured, and ONNX Runtime's
#   int8_gain_NET              int8 beside its float parent in our own engine
#   train_NET, train_all       steps of training beside PyTorch (Debian's python3-torch) at its best setting: channels
#                              last, allocator tuned; batch 128, 2 threads; resnet20, lenet5, mobilenet_v2
#   train_bf16_resnet20        values between layers in bfloat16 on both sides (PyTorch 1.13 has no backward of ReLU6)
#   train_default_NET          beside PyTorch as it is without tuning
#   data_path                  pictures a second made ready for training by one thread, kept and decoded each time (needs
#                              BONSAI_SHARED, a folder with datasets/)
#   beside_training            resnet20 served at half load with and without a training beside it: 99th percentiles
#   pause_latency              until a training has stopped when a request comes, beside 2 ms
#   kernel_ROW, kernel_all     kernels on one layer beside their peers, with their share of the machine's peak: the
#                              rows are in kernel_bench.c
#
# BENCH_LOCK names a file that is locked while something is timed: several runs on one machine take turns.
# BENCH_SECONDS is how long one setting may take (5 rounds at least).
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD:-$root/build}
work=$build/bench
mkdir -p "$work/nets"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

small_forms="lut4 lut2 bit sparse block"
nets="resnet18 resnet50 vgg16 mobilenet_v2 squeezenet1_1 resnet20"
# both sides at once: what else the machine does then does not come in between
realtime=$(chrt -f 10 true 2>/dev/null && echo "chrt -f 10" || true)

need_ort() {
    ORT_FOLDER=${ORT_FOLDER:-$work/ort}
    export ORT_FOLDER
    if [ ! -d "$ORT_FOLDER/node_modules/onnxruntime-node" ]; then
        mkdir -p "$ORT_FOLDER"
        (cd "$ORT_FOLDER" && npm init -y >/dev/null && npm install --ignore-scripts --no-audit --no-fund onnxruntime-node@1.30.0 >/dev/null)
    fi
}

need_net() {
    if [ "$1" = vgg16 ]; then
        [ -f "$work/nets/vgg16.onnx" ] || "$build/tests/bench/make_vgg16" "$work/nets/vgg16.onnx"
    else
        /usr/bin/python3 "$root/tests/bench/make_nets.py" "$work/nets" "$1"
    fi
}

# need_variant KIND NET: made by our own worker; calibrated on noise, only time and memory matter here
need_variant() {
    need_net "$2"
    if [ "$work/nets/$2.$1.onnx" -nt "$work/nets/$2.onnx" ]; then return; fi
    side=224
    [ "$2" = resnet20 ] && side=32
    /usr/bin/python3 -c "
import numpy, sys
numpy.save(sys.argv[1], numpy.random.default_rng(1).standard_normal([4, 3, int(sys.argv[2]), int(sys.argv[2])]).astype('f'))" \
        "$work/nets/$2.npy" "$side"
    echo "[$(step_of "$1")]" >"$work/nets/recipe.json"
    "$build/bonsai-worker" run "$work/nets/recipe.json" --model "$work/nets/$2.onnx" --data "$work/nets/$2.npy" \
        -o "$work/nets/$2.$1.onnx" >/dev/null
}

# The step that brings a network into a form.
step_of() {
    case $1 in
    int8) echo '{"method":"quantize","scheme":"int8","observer":"minmax"}' ;;
    lut4 | lut2 | bit | trit) echo "{\"method\":\"encode\",\"form\":{\"code\":\"$1\"}}" ;;
    sparse) echo '{"method":"encode","form":{"structure":"sparse","code":"s8"},"sparsity":0.9}' ;;
    block) echo '{"method":"encode","form":{"structure":"block","code":"s8"},"sparsity":0.9}' ;;
    esac
}

# need_file KIND NET: makes the file and sets $file to it
need_file() {
    case $1 in
    float) need_net "$2" && file=$work/nets/$2.onnx ;;
    *) need_variant "$1" "$2" && file=$work/nets/$2.$1.onnx ;;
    esac
}

# take_turns NAME -- OURS… [-- TUNED…] -- PEER…
take_turns() {
    turns=$1
    shift
    ${BENCH_LOCK:+flock "$BENCH_LOCK"} $realtime node "$root/tests/bench/interleave.mjs" \
        "$turns" "${BENCH_SECONDS:-10}" "$@"
}

# latency KIND NET BATCH THREADS: beside ONNX Runtime on the same file
latency() {
    need_ort
    need_file "$1" "$2"
    take_turns "$1_$2_b$3_t$4" \
        -- "$build/tests/bench/float_latency" "$file" "$3" "$4" \
        -- env "BONSAI_TUNE=$work/timings" "$build/tests/bench/float_latency" "$file" "$3" "$4" \
        -- node "$root/tests/bench/ort_latency.mjs" "$file" "$3" "$4"
}

# load KIND NET
load() {
    need_ort
    need_file "$1" "$2"
    ${BENCH_LOCK:+flock "$BENCH_LOCK"} $realtime node "$root/tests/bench/load.mjs" "load_$1_$2" 7 \
        -- env "BONSAI_TUNE=$work/timings" "$build/tests/bench/load_first" "$file" \
        -- node --expose-gc "$root/tests/bench/ort_load.mjs" "$file"
}

loads() {
    for net in $nets; do
        load float "$net"
        load int8 "$net"
    done
}

# The geometric mean of the "… ratio=R" lines it reads, after them, the lowest, and that of the tuned ones.
mean() {
    awk -v name="$1" '{ print; fflush() }
        / tuned=/ { r = $NF; sub("tuned=", "", r); tuned += log(r); n_tuned++ }
        / ratio=/ { r = $NF; sub("ratio=", "", r); sum += log(r); n++; if (n == 1 || r < low) { low = r; which = $1 } }
        END { if (!n) exit 1; if (n_tuned) printf "%s tuned=%.3f\n", name, exp(tuned / n_tuned); printf "%s: lowest %s %.3f\n%s ratio=%.3f\n", name, which, low, name, exp(sum / n) }'
}

# settings KIND NET…
settings() {
    kind=$1
    shift
    for net in "$@"; do
        for batch in 1 8; do
            for threads in 1 2; do latency "$kind" "$net" "$batch" "$threads"; done
        done
    done
}

# int8_gain NET: beside its float parent in our own engine
int8_gain() {
    need_variant int8 "$1"
    take_turns "int8_gain_$1" \
        -- "$build/tests/bench/float_latency" "$work/nets/$1.int8.onnx" 1 1 \
        -- "$build/tests/bench/float_latency" "$work/nets/$1.onnx" 1 1
}

# Eight networks that share no weights, four of them int8: copies of resnet20 with every weight moved a little.
need_eight() {
    need_variant int8 resnet20
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

memory() {
    /usr/bin/python3 "$root/tests/bench/memory.py" "$build" "$@"
}

# The forms of resnet50 in one daemon, each beside ONNX Runtime.
eight_forms() {
    need_ort
    need_net resnet50
    need_net resnet50_low_rank
    set -- "float=$work/nets/resnet50.onnx" "low_rank=$work/nets/resnet50_low_rank.onnx"
    for form in int8 $small_forms; do
        need_variant "$form" resnet50
        set -- "$@" "$form=$work/nets/resnet50.$form.onnx"
    done
    memory forms "$@"
}

# Time and memory of the same compressed files in ONNX Runtime.
compressed() {
    for form in $small_forms; do
        latency "$form" resnet50 1 1
        load "$form" resnet50
    done
}

# train NAME NET MODE: our steps beside PyTorch's
train() {
    need_train_net "$2"
    allocator="MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=268435456"
    [ "$3" = default ] && allocator=
    ours=
    [ "$3" = bf16 ] && ours="4 bf16"
    take_turns "$1" \
        -- "$build/tests/bench/train_bench" "$work/nets/train_$2.onnx" 128 2 $ours \
        -- env $allocator OMP_NUM_THREADS=2 /usr/bin/python3 "$root/tests/bench/train_torch.py" "$3" "$2" 128 2
}

trains() {
    for net in resnet20 lenet5 mobilenet_v2; do train "train_$net" "$net" tuned; done
}

data_path() {
    archive=${BONSAI_SHARED:-}/datasets/cifar10-train-jpeg.tar.gz
    if [ ! -f "$archive" ]; then
        echo "data_path: skipped, $archive is not there (BONSAI_SHARED)"
        return
    fi
    "$build/tests/bench/data_path" "$archive" 32 3 "${BENCH_SECONDS:-20}"
}

need_train_net() {
    [ -f "$work/nets/train_$1.onnx" ] || /usr/bin/python3 "$root/tests/bench/train_torch.py" export "$1" "$work/nets/train_$1.onnx"
}

serving() {
    /usr/bin/python3 "$root/tests/bench/serving.py" "$build" "$1" "${ORT_FOLDER:-}"
}

unknown() {
    echo "unknown benchmark $1; there are: $all, and float_ and int8_ with one of $nets" >&2
    exit 2
}

# KIND_NET or KIND_NET_bB_tT
of_net() {
    kind=${1%%_*}
    net=${1#*_}
    batch=
    case $net in
    *_b[0-9]*_t[0-9]*)
        threads=${net##*_t}
        net=${net%_t*}
        batch=${net##*_b}
        net=${net%_b*}
        ;;
    esac
    case " $nets " in
    *" $net "*) ;;
    *) unknown "$1" ;;
    esac
    if [ "$batch" ]; then
        latency "$kind" "$net" "$batch" "$threads"
    else
        settings "$kind" "$net" | mean "$1"
    fi
}

run_one() {
    case $1 in
    float_all | int8_all) settings "${1%_all}" $nets | mean "$1" ;;
    kernel_*) ${BENCH_LOCK:+flock "$BENCH_LOCK"} $realtime "$build/tests/bench/kernel_bench" "${1#kernel_}" ;;
    int8_gain_*) int8_gain "${1#int8_gain_}" ;;
    float_* | int8_*) of_net "$1" ;;
    data_path) data_path ;;
    train_all) trains | mean "$1" ;;
    train_default_resnet20 | train_default_lenet5 | train_default_mobilenet_v2)
        train "$1" "${1#train_default_}" default
        ;;
    train_bf16_resnet20) train "$1" resnet20 bf16 ;;
    train_resnet20 | train_lenet5 | train_mobilenet_v2) train "$1" "${1#train_}" tuned ;;
    beside_training)
        need_train_net resnet20
        ${BENCH_LOCK:+flock "$BENCH_LOCK"} /usr/bin/python3 "$root/tests/bench/beside_training.py" "$build" "$work/nets/train_resnet20.onnx"
        ;;
    pause_latency)
        need_train_net resnet20
        ${BENCH_LOCK:+flock "$BENCH_LOCK"} "$build/tests/bench/pause_latency" 500 \
            "$build/tests/bench/train_bench" "$work/nets/train_resnet20.onnx" 128 2
        ;;
    load_first_answer) loads | mean "$1" ;;
    load_float_* | load_int8_*)
        kind=${1#load_}
        load "${kind%%_*}" "${kind#*_}"
        ;;
    compressed) compressed | mean "$1" ;;
    eight_forms) eight_forms ;;
    lenet_requests) need_ort && serving requests ;;
    json_parse) "$build/tests/bench/json_parse" ;;
    added_time) serving added ;;
    start_ready) serving start ;;
    big_upload) need_net vgg16 && memory big "$work/nets/vgg16.onnx" ;;
    eight_resident) need_eight && memory resident "$work"/nets/eight?.onnx ;;
    *) unknown "$1" ;;
    esac
}

all="float_all int8_all kernel_all data_path train_all train_bf16_resnet20 train_default_resnet20 beside_training pause_latency load_first_answer compressed eight_forms int8_gain_resnet20 int8_gain_resnet18 int8_gain_mobilenet_v2 lenet_requests json_parse added_time start_ready big_upload eight_resident"
if [ "${1:-all}" = all ]; then
    for name in $all; do run_one "$name"; done
else
    run_one "$1"
fi
