#!/bin/sh
# The whole idea in one run: sh clients/demo.sh
#
# Installs what is needed, builds, starts the daemon, uploads a trained network (LeNet-5 for Fashion-MNIST) and its
# data, lets a job make an int8 variant of it, and shows what that costs in accuracy and brings in time and bytes,
# measured on 10,000 pictures. Everything it makes lies under build/; run again, it goes on with what is there. The
# daemon is left running.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
build=${BUILD:-$root/build}
demo=$build/demo
model=lenet5 data=fashion variant=int8
fashion=/usr/share/datasets/fashion-mnist

say() {
    printf '\n\033[1m== %s\033[0m\n' "$*"
}

# shows a command, then runs it
show() {
    printf '$ %s\n' "$*"
    "$@"
}

# a program that was built anew since shows as "… (deleted)"
is_running() {
    [ -f "$demo/pid" ] && kill -0 "$(cat "$demo/pid")" 2>/dev/null || return 1
    case $(readlink "/proc/$(cat "$demo/pid")/exe" 2>/dev/null) in
    "$build/bonsaid" | "$build/bonsaid (deleted)") return 0 ;;
    *) return 1 ;;
    esac
}

stop() {
    kill "$(cat "$demo/pid")" 2>/dev/null || true
    for _ in $(seq 100); do
        is_running || return 0
        sleep 0.1
    done
    is_running && kill -9 "$(cat "$demo/pid")" 2>/dev/null || true
}

start() {
    : >"$demo/out"
    setsid "$build/bonsaid" --state "$demo/state" --listen 127.0.0.1:0 >"$demo/out" 2>>"$demo/log" </dev/null &
    echo $! >"$demo/pid"
    for _ in $(seq 300); do
        grep -q '^listening on ' "$demo/out" && return 0
        is_running || break
        sleep 0.1
    done
    echo "the daemon did not start:" >&2
    tail -5 "$demo/log" >&2
    exit 1
}

say "What is needed: Debian packages, the build"
sh config/deps.sh demo
[ -f "$build/build.ninja" ] || meson setup "$build" >"$build.setup.log" 2>&1 || {
    tail -20 "$build.setup.log" >&2
    exit 1
}
mkdir -p "$demo/state"
ninja -C "$build" bonsaid bonsai bonsai-worker >"$demo/build.log" 2>&1 || {
    tail -20 "$demo/build.log" >&2
    exit 1
}
echo "built: build/bonsaid, build/bonsai-worker, build/bonsai"

say "The daemon"
# an older program than the one just built makes room for it
if is_running && [ -n "$(find "$build/bonsaid" "$build/bonsai-worker" -newer "$demo/pid")" ]; then
    stop
fi
is_running || start
url=$(sed -n 's/^listening on //p' "$demo/out")
BONSAI_URL=$url
export BONSAI_URL
PATH=$build:$PATH
echo "bonsaid runs at $url (process $(cat "$demo/pid"))"
for _ in $(seq 300); do
    curl -fs -o "$demo/ready" "$url/readyz" && break
    sleep 0.1
done

say "A trained network goes in by curl"
show curl -fsS -T clients/demo/lenet5_fashion.onnx "$url/api/v1/models/$model" -o "$demo/model.json" \
    -w 'answered with %{http_code}, %{size_upload} bytes in %{time_total} s\n'
# how a picture becomes its input, and what its classes are called
printf '{"preprocess": %s, "labels": [%s]}' "$(cat clients/demo/preprocess.json)" \
    "$(sed 's/.*/"&"/' clients/demo/labels.txt | paste -sd,)" |
    curl -fsS -X PATCH --data-binary @- "$url/api/v1/models/$model" -o "$demo/model.json"

say "So does its data: 60,000 pictures to learn from, 10,000 to judge with"
if [ ! -f "$demo/fashion.tar" ]; then
    mkdir -p "$demo/pack/train" "$demo/pack/test"
    cp "$fashion"/train-*.gz "$demo/pack/train/"
    cp "$fashion"/t10k-*.gz "$demo/pack/test/"
    tar -C "$demo/pack" --sort=name --mtime=@0 --owner=0 --group=0 -cf "$demo/fashion.tar" train test
    rm -r "$demo/pack"
fi
show curl -fsS -T "$demo/fashion.tar" "$url/api/v1/datasets/$data" -o "$demo/dataset.json" \
    -w 'answered with %{http_code}, %{size_upload} bytes in %{time_total} s\n'
bonsai datasets

say "A job makes an int8 variant"
if curl -fs -o "$demo/variant.json" "$url/api/v1/models/$model/variants/$variant"; then
    echo "it is there already"
else
    show bonsai compress "$model" --steps '[{"method":"quantize","scheme":"int8"}]' --dataset "$data" --as "$variant" \
        --watch
fi
for name in original "$variant"; do
    curl -fsS -X POST "$url/api/v1/models/$model/variants/$name/load" -o "$demo/load.json"
done

say "Both stay in memory, side by side"
show bonsai variants "$model"

say "What it costs and what it brings, on 10,000 pictures that took no part"
show bonsai compare "$model"

say "Ask both"
curl -fsS "$url/api/v1/datasets/$data/items/0?split=test" -o "$demo/picture.png"
for name in original "$variant"; do
    show bonsai infer "$model" "$demo/picture.png" --variant "$name" --top 3
done

say "Done"
echo "the page:         $url/"
echo "stop the daemon:  kill $(cat "$demo/pid")"
echo "start over:       kill $(cat "$demo/pid"); rm -r $demo"
