"""VGG-16 at ImageNet's size with generated weights (tests/bench/make_vgg16.c), for the programs beside it: no accuracy, but
bytes, memory and minutes."""

import json
import os
import resource
import subprocess
import time

import reach

# pooling behind these layers
POOLED = (1, 3, 6, 9, 12)
N_CONV, N_LAYERS = 13, 16


def layer_ids():
    """As make_vgg16 names nodes: by their order."""
    ids, k = [], 0
    for i in range(N_LAYERS):
        k += i == N_CONV  # Flatten
        ids.append(f"v{k}")
        k += 1 + (i + 1 < N_LAYERS) + (i in POOLED)
    return ids


def make(r):
    path = os.path.join(r.folder, "vgg16.onnx")
    if not os.path.exists(path):
        subprocess.run([os.path.join(r.build, "tests/bench/make_vgg16"), path + ".new"], check=True)
        os.replace(path + ".new", path)
    return reach.Net("vgg16", ("", ""), path=path, card="")


def run(r, name, steps, net):
    """(variant, seconds, peak bytes of the worker)"""
    key = f"{name}-{reach.digest(steps, r.args.seed)}"
    out, recipe = (os.path.join(r.folder, key + end) for end in (".onnx", ".recipe"))
    with open(recipe, "w", encoding="ascii") as f:
        json.dump(steps, f)

    def make_variant():
        begin = time.monotonic()
        report = r.command(["run", recipe, "--model", net.path, "--threads", str(r.args.threads), "--seed", str(r.args.seed),
                            "-o", out])["done"]
        peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        return {"report": report, "seconds": time.monotonic() - begin, "peak": peak}

    found = r.keep(key, make_variant)
    return reach.Variant(net, out, found["report"]), found["seconds"], found["peak"]
