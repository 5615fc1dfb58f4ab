#!/usr/bin/env python3
"""The method lowrank by bonsai-worker: the dry run's MACs are the variant's, measured times given again make the same
bytes from any number of threads, and a job that was killed ends with the undisturbed one's bytes.

    python3 test_lowrank.py BONSAI-WORKER MODEL.onnx PREPROCESS.json DATA.tar
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import unittest

WORKER = MODEL = PREPROCESS = DATA = None
STEP = {"method": "lowrank", "decomposition": "tucker2", "rank": {"macs": 0.6}, "multiple": 4}


class Lowrank(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def json_file(self, name, content):
        with open(self.path(name), "w", encoding="ascii") as f:
            json.dump(content, f)
        return self.path(name)

    def command(self, out, step, *more):
        return [WORKER, "run", self.json_file(out + ".json", [step]), "--model", MODEL, "--preprocess", PREPROCESS,
                "--data", DATA, "--seed", "3", *more, "-o", self.path(out)]

    def run_step(self, out, step, *more):
        p = subprocess.run(self.command(out, step, *more), capture_output=True, timeout=60, check=False)
        self.assertEqual(p.returncode, 0, p.stdout[-2000:] + p.stderr)
        return json.loads(p.stdout.splitlines()[-1])["done"]["steps"][0]

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def test_the_dry_run_tells_the_macs(self):
        step = {**STEP, "break_even": "macs"}
        job = self.json_file("job.json", {"input": MODEL, "steps": [step]})
        plan = json.loads(subprocess.run([WORKER, "plan", job], capture_output=True, timeout=60, check=True).stdout)
        report = self.run_step("out.onnx", step)
        summary = json.loads(subprocess.run([WORKER, "check", self.path("out.onnx")], capture_output=True, timeout=60,
                                            check=True).stdout)
        self.assertEqual(plan["macs"], summary["macs"])
        self.assertEqual(report["macs"], summary["macs"])
        self.assertLessEqual(plan["macs"], 0.6 * plan["macs_before"])

    def test_times_given_again_make_the_same_bytes(self):
        first = self.run_step("first.onnx", STEP, "--threads", "1")
        self.assertTrue(first["latencies"])
        again = {**STEP, "latencies": first["latencies"]}
        second = self.run_step("second.onnx", again, "--threads", "1")
        third = self.run_step("third.onnx", again, "--threads", "2")
        self.assertEqual(first["latencies"], second["latencies"])
        self.assertEqual(second, third)
        self.assertEqual(self.read("second.onnx"), self.read("third.onnx"))

    def test_what_was_killed_goes_on_to_the_same_bytes(self):
        rng = random.Random(2)
        times = self.run_step("times.onnx", STEP)["latencies"]
        step = {**STEP, "latencies": times, "recover": {"finetune": {"epochs": 20, "batch": 20, "lr": 0.01}}}
        self.run_step("whole.onnx", step)
        for _ in range(2):
            p = subprocess.Popen(self.command("parts.onnx", step, "--checkpoint", self.path("c"), "--checkpoint-seconds",
                                              "0"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                p.wait(rng.uniform(0.1, 0.8))
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        self.run_step("parts.onnx", step, "--checkpoint", self.path("c"), "--checkpoint-seconds", "0")
        self.assertEqual(self.read("parts.onnx"), self.read("whole.onnx"))


if __name__ == "__main__":
    WORKER, MODEL, PREPROCESS, DATA = sys.argv[1:5]
    unittest.main(argv=sys.argv[:1])
