#!/usr/bin/env python3
"""Pruning of weights and channels from the command line: judged, removed, trained, in rounds and gradually; killed in between, it
ends with the same bytes as undisturbed, as sparse as it was asked.

    python3 test_prune.py BONSAI-WORKER MODEL.onnx PREPROCESS.json [KILLS] [SEED]
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

import test_resume

SPARSITY = 0.8
MACS = 0.6  # kept, of whole channels
FINETUNE = {"epochs": 2, "batch": 32, "lr": 0.02}
STEPS = {
    "gradual": [{"method": "prune", "granularity": "weight", "criterion": "lamp", "sparsity": SPARSITY,
                 "schedule": {"kind": "gradual"}, "recover": {"finetune": dict(FINETUNE, epochs=4)}}],
    "iterative": [{"method": "prune", "granularity": "weight", "criterion": "taylor", "sparsity": SPARSITY,
                   "regularize": {"kind": "l1", "strength": 1e-3, "epochs": 1},
                   "schedule": {"kind": "iterative", "rounds": 2, "max_drop": 1}, "recover": {"finetune": FINETUNE}}],
    "channels": [{"method": "prune", "criterion": "taylor", "macs": MACS,
                  "schedule": {"kind": "iterative", "rounds": 2, "max_drop": 1},
                  "recover": {"calibrate": {}, "finetune": dict(FINETUNE, epochs=1)}}],
}


def sparsity_of(worker, path):
    text = subprocess.run([worker, "check", path], check=True, stdout=subprocess.PIPE).stdout
    weights = [layer for layer in json.loads(text)["layers"] if layer["op"] in ("Conv", "Gemm")]
    return 1 - sum(layer["nonzero"] for layer in weights) / sum(layer["params"] for layer in weights)


def macs_of(worker, path):
    return json.loads(subprocess.run([worker, "check", path], check=True, stdout=subprocess.PIPE).stdout)["macs"]


def events(text):
    return [line["log"]["text"] for line in map(json.loads, text.splitlines()) if "log" in line]


def run(worker, model, preprocess, steps, rng, kills):
    folder = tempfile.mkdtemp(prefix="bonsai-prune-")
    try:
        test_resume.STEPS = steps
        t = test_resume.Training(worker, model, preprocess, folder)
        begin = time.monotonic()
        process = t.start()
        text = process.communicate(timeout=test_resume.MAX_SECONDS)[0].decode()
        length = time.monotonic() - begin
        assert process.returncode == 0, text[-2000:]
        with open(t.out, "rb") as f:
            want = f.read()
        if "macs" in steps[0]:
            assert macs_of(worker, t.out) <= MACS * macs_of(worker, model)
        else:
            found = sparsity_of(worker, t.out)
            assert abs(found - SPARSITY) < 0.005, found  # biases are counted, too
        assert any("removed" in line for line in events(text)), events(text)
        for kill in range(kills + 1):
            process = t.start_over(1 + kill % 2)
            if kill < kills:
                try:
                    process.wait(rng.uniform(0.2, 0.8) * length)
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    continue
        assert t.result(process)[0] == want, "other bytes than undisturbed"
        return text
    finally:
        shutil.rmtree(folder)


def main(worker, model, preprocess, kills=2, seed=1):
    rng = random.Random(int(seed))
    for name, steps in STEPS.items():
        text = run(worker, model, preprocess, steps, rng, int(kills))
        rounds = [line for line in events(text) if "prune: round" in line]
        assert len(rounds) == (0 if name == "gradual" else 2), rounds
        assert all("judged by taylor" in line and "fine-tuned" in line for line in rounds), rounds
        print(f"{name}: {kills} kills, the undisturbed one's bytes")


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main(*sys.argv[1:])
