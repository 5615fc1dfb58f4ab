#!/usr/bin/env python3
"""Codebooks and quantisation-aware training by bonsai-worker run: files of the right size that answer nearly as before,
training that helps, the same bytes from any number of threads and over a kill.

    python3 test_codebook.py BONSAI-WORKER MODEL.onnx PREPROCESS.json DATA.tar
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

WORKER = MODEL = PREPROCESS = DATA = None

BOOK = {"method": "quantize", "scheme": "codebook", "bits": 3}
TRAIN = {"epochs": 4, "lr": 0.002, "batch": 16}


class Codebook(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def command(self, name, steps, *more):
        with open(self.path(name + ".json"), "w", encoding="ascii") as f:
            json.dump(steps, f)
        return [WORKER, "run", self.path(name + ".json"), "--model", MODEL, "--data", DATA, "--preprocess", PREPROCESS,
                "--seed", "3", *more, "-o", self.path(name + ".onnx")]

    def run_steps(self, name, steps, *more, status=0):
        p = subprocess.run(self.command(name, steps, *more), capture_output=True, timeout=100, check=False)
        self.assertEqual(p.returncode, status, p.stdout[-2000:] + p.stderr)
        last = json.loads(p.stdout.splitlines()[-1])
        return last["done" if status == 0 else "error"]

    def read(self, name):
        with open(self.path(name + ".onnx"), "rb") as f:
            return f.read()

    def losses(self, report, key):
        return [e["loss"] for e in report["steps"][0][key]["epochs"]]

    def test_forms_and_bytes_are_those_of_the_dry_run(self):
        for name, step in (("book", BOOK), ("floats", dict(BOOK, bits=5, codebook={"entries": "float", "init": "density"})),
                           ("channels", dict(BOOK, codebook={"scope": "channel"})),
                           ("product", {"method": "quantize", "scheme": "product", "product": {"dim": 4, "words": 64}}),
                           ("residual", {"method": "quantize", "scheme": "residual", "product": {"dim": 4, "words": 64}})):
            with self.subTest(name):
                done = self.run_steps(name, [step])
                forms = {layer["form"] for layer in done["layers"]} - {"dense"}
                self.assertEqual(forms, {"codebook" if name in ("book", "floats", "channels") else name})
                self.assertLess(len(self.read(name)), 0.5 * os.path.getsize(MODEL))

    def test_training_through_a_codebook_helps_and_keeps_it(self):
        report = self.run_steps("book", [dict(BOOK, bits=2, recover={"finetune": TRAIN})])
        losses = self.losses(report, "finetune")
        self.assertLess(losses[-1], losses[0])
        self.assertEqual({layer["form"] for layer in report["layers"]}, {"codebook"})

    def test_training_aware_of_the_rounding_helps(self):
        for estimator in ("lsq", "ste"):
            with self.subTest(estimator):
                step = {"method": "quantize", "scheme": "fixed", "bits": 4, "qat": {"estimator": estimator, "epochs": 6}}
                report = self.run_steps(estimator, [step])
                losses = self.losses(report, "qat")
                self.assertLess(min(losses[1:]), losses[0])
        self.assertNotEqual(self.read("lsq"), self.read("ste"))

    def test_threads_and_a_kill_change_nothing(self):
        steps = [dict(BOOK, codebook={"init": "kmeans++"}, recover={"finetune": dict(TRAIN, epochs=8)})]
        self.run_steps("one", steps, "--threads", "1")
        self.run_steps("two", steps, "--threads", "2")
        self.assertEqual(self.read("one"), self.read("two"))
        for delay in (0.3, 0.6):
            p = subprocess.Popen(self.command("killed", steps, "--checkpoint", self.path("kept"), "--checkpoint-seconds", "0"),
                                 stdout=subprocess.DEVNULL)
            time.sleep(delay)
            p.send_signal(signal.SIGKILL)
            p.wait()
        self.run_steps("killed", steps, "--checkpoint", self.path("kept"), "--checkpoint-seconds", "0")
        self.assertEqual(self.read("one"), self.read("killed"))

    def test_keys_of_other_schemes_are_refused_by_path(self):
        error = self.run_steps("bad", [{"method": "quantize", "scheme": "int8", "codebook": {"scope": "layer"}}], status=1)
        self.assertIn("steps[0].codebook", error["message"])


if __name__ == "__main__":
    WORKER, MODEL, PREPROCESS, DATA = sys.argv[1:5]
    unittest.main(argv=sys.argv[:1])
