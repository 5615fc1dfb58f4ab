#!/usr/bin/env python3
"""Two methods after each other, in both orders: what the first one gained is still there after the second (zeros,
structures, ranks), and ONNX Runtime runs the file to our answer.

    python3 pairs.py WORKER WORK_DIR     ORT_FOLDER: where ONNX Runtime is installed

Weights that are encoded are not touched by later steps: such pairs must be refused, with a sentence that says so, and
so are methods that would lose a pruned network's zeros."""

import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "data")
MODEL = os.path.join(DATA, "models", "mnist-8.onnx")
PICTURES = os.path.join(DATA, "datasets", "fashion-tiny.tar")

CALIBRATE = {"calibrate": {"samples": 32}}
STEPS = {
    "weight": {"method": "prune", "granularity": "weight", "sparsity": 0.6},
    "block": {"method": "prune", "granularity": "block", "block": [1, 4], "sparsity": 0.5},
    "channel": {"method": "prune", "granularity": "channel", "sparsity": 0.3, "recover": CALIBRATE},
    "lowrank": {"method": "lowrank", "rank": {"energy": 0.95}, "multiple": 1, "break_even": "none"},
    "bf16": {"method": "quantize", "scheme": "bf16"},
    "codebook": {"method": "quantize", "scheme": "codebook", "bits": 4},
    "dynamic": {"method": "quantize", "scheme": "dynamic"},
    "fixed": {"method": "quantize", "scheme": "fixed", "bits": 4},
    "int8": {"method": "quantize", "scheme": "int8"},
    "product": {"method": "quantize", "scheme": "product", "product": {"dim": 5, "words": 16}},
}
ENCODES = {"bf16", "codebook", "dynamic", "fixed", "int8", "product"}
PRUNES = {"weight": 0.6, "block": 0.5}


class Failed(Exception):
    pass


def call(*args, check=True):
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False)
    text = done.stdout.decode(errors="replace").strip()
    if check and done.returncode != 0:
        raise Failed(text.splitlines()[-1] if text else f"{args[0]}: {done.returncode}")
    return done.returncode, text


class Pairs:
    def __init__(self, worker, work):
        self.worker, self.work, self.failed, self.compared, self.refused = worker, work, 0, 0, 0

    def zeros(self, path):
        """Share of the weights of convolutions and fully connected layers that is zero."""
        layers = json.loads(call(self.worker, "check", path)[1].splitlines()[-1])["layers"]
        rows = [row for row in layers if row["op"] in ("Conv", "Gemm", "MatMul") and row["params"] > 500]
        return 1 - sum(row["nonzero"] for row in rows) / sum(row["params"] for row in rows)

    def agrees(self, path, folder, is_int):
        noise = os.path.join(self.work, "noise.npy")
        ours, theirs = os.path.join(folder, "ours"), os.path.join(folder, "ort")
        os.makedirs(ours, exist_ok=True)
        os.makedirs(theirs, exist_ok=True)
        call(self.worker, "infer", path, "--input", f"Input3={noise}", "--output", ours)
        call("node", os.path.join(HERE, "ort.js"), path, "--input", f"Input3={noise}", "--output", theirs)
        name = os.listdir(ours)[0]
        limits = ["--p99", "5e-2", "--largest", "5e-2"] if is_int else ["--p99", "1e-4", "--largest", "1e-4"]
        code, text = call("node", os.path.join(HERE, "agree.js"), os.path.join(ours, name), os.path.join(theirs, name),
                          *limits, check=False)
        if code:
            raise Failed("does not agree with ONNX Runtime: " + text)

    def check_forms(self, first, layers):
        """What the first step encoded is as it was; the second may have taken what was left."""
        recipe, out = os.path.join(self.work, first + ".json"), os.path.join(self.work, first + ".onnx")
        with open(recipe, "w", encoding="ascii") as f:
            json.dump([STEPS[first]], f)
        text = call(self.worker, "run", recipe, "--model", MODEL, "--data", PICTURES, "-o", out)[1]
        before = {row["id"]: row["form"] for row in json.loads(text.splitlines()[-1])["done"]["layers"]}
        if all(form != "dense" for form in before.values()):
            raise Failed("a step after one that encodes all was not refused")
        for row in layers:
            if before.get(row["id"], "dense") not in ("dense", row["form"]):
                raise Failed(f"{row['id']} was {before[row['id']]} and is {row['form']}")

    def check(self, first, second):
        folder = os.path.join(self.work, f"{first}-{second}")
        os.makedirs(folder, exist_ok=True)
        recipe, out = os.path.join(folder, "recipe.json"), os.path.join(folder, "out.onnx")
        with open(recipe, "w", encoding="ascii") as f:
            json.dump([STEPS[first], STEPS[second]], f)
        code, text = call(self.worker, "run", recipe, "--model", MODEL, "--data", PICTURES, "-o", out, check=False)
        last = text.splitlines()[-1]
        if code and "steps[1]" in last and ("encoded" in last or "zeros would not stay" in last or (
                first == "dynamic" and "applies to no layer" in last)):
            if first in PRUNES and second not in ("lowrank", "product"):  # those could not hold the zeros
                raise Failed("pruned weights were refused: " + last[:300])
            self.refused += 1
            return
        if code:
            raise Failed(last[:500])
        if first in ENCODES:
            self.check_forms(first, json.loads(last)["done"]["layers"])
        least = max(PRUNES.get(first, 0), PRUNES.get(second, 0)) - 0.02
        # products of whole numbers (dynamic) have no weights that the summary counts
        if not ({first, second} & {"channel", "lowrank", "dynamic"}) and self.zeros(out) < least:
            raise Failed(f"{self.zeros(out):.3f} of the weights are zero, not {least:.2f}")
        self.agrees(out, folder, second in ENCODES - {"bf16"})
        self.compared += 1

    def run(self):
        for first in STEPS:
            for second in STEPS:
                if first == second:
                    continue
                try:
                    self.check(first, second)
                except Failed as e:
                    self.failed += 1
                    print(f"{first}, then {second}: {e}")
        print(f"pairs: {self.compared} compared, {self.refused} refused as they must, {self.failed} failed")
        return 1 if self.failed else 0


def main():
    pairs = Pairs(sys.argv[1], sys.argv[2])
    os.makedirs(pairs.work, exist_ok=True)
    call("node", "-e", f"""
const {{ writeNpy }} = require('{HERE}/npy.js');
let s = 3;
const next = () => ((s = (Math.imul(s, 1664525) + 1013904223) >>> 0) >>> 8) / 65793;
writeNpy('{pairs.work}/noise.npy', 'float32', [1, 1, 28, 28], Float32Array.from({{ length: 784 }}, next));""")
    sys.exit(pairs.run())


if __name__ == "__main__":
    main()
