#!/usr/bin/env python3
"""What each layer bears, offline: the values that networks have in common are kept and give the same damages as a run
from the input; killed at random instants, it goes on and ends with the same table.

    python3 test_sensitivity.py BONSAI-WORKER MODEL.onnx PREPROCESS.json DATA [KILLS] [SEED]
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time

METHODS = [{"method": "prune", "granularity": "weight", "scope": "layer", "sparsity": 0.5 + 0.06 * i} for i in range(8)]
METHODS += [{"method": "quantize", "scheme": "fixed", "bits": 3}]
MAX_SECONDS = 60


class Measurement:
    def __init__(self, worker, model, preprocess, data, folder):
        spec = os.path.join(folder, "spec.json")
        with open(spec, "w", encoding="ascii") as f:
            json.dump({"methods": METHODS, "samples": 64, "seed": 2}, f)
        self.command = [worker, "sensitivity", spec, "--model", model, "--preprocess", preprocess, "--data", data]
        self.checkpoint = os.path.join(folder, "checkpoint")

    def start(self, *more):
        return subprocess.Popen([*self.command, *more], stdout=subprocess.PIPE)

    def result(self, process):
        """The table, and the share of the layers that was computed."""
        text = process.communicate(timeout=MAX_SECONDS)[0].decode()
        assert process.returncode == 0, text[-2000:]
        share = re.search(r"judged; (\d+)% of their layers computed", text)
        return json.loads(text.splitlines()[-1])["done"], int(share[1])

    def run(self, *more):
        begin = time.monotonic()
        table, share = self.result(self.start(*more))
        return table, share, time.monotonic() - begin

    def kept(self):
        return self.start("--checkpoint", self.checkpoint, "--checkpoint-seconds", "0")


def damages(table):
    return [cell[what]["damage"] for row in table["layers"] for cell in row["cells"] for what in ("compressed", "restored")]


def main(worker, model, preprocess, data, kills=3, seed=1):
    rng = random.Random(int(seed))
    with tempfile.TemporaryDirectory(prefix="bonsai-sensitivity-") as folder:
        m = Measurement(worker, model, preprocess, data, folder)
        want, share, seconds = m.run()
        plain, all_of_it, seconds_plain = m.run("--no-cache")
        assert all_of_it == 100 and share < 70, (share, all_of_it)
        for a, b in zip(damages(want), damages(plain)):
            assert abs(a - b) <= 1e-3 * b + 1e-6, (a, b)
        for _ in range(int(kills)):
            process = m.kept()
            try:
                process.wait(rng.uniform(0.2, 0.8) * seconds)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        found, _ = m.result(m.kept())
        assert found == want, "another table than undisturbed"
        print(f"{len(damages(want))} damages; {share}% of the layers computed, {seconds:.1f} s against {seconds_plain:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
