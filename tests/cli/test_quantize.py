#!/usr/bin/env python3
"""Post-training quantisation from the command line, on the demo's network and generated pictures: every scheme makes a
file that is evaluated, the same one again from the same seed; accuracy_control holds its bound; what cannot be is refused.

    python3 test_quantize.py BONSAI-WORKER MODEL.onnx PREPROCESS.json
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import unittest

import test_resume

WORKER = MODEL = PREPROCESS = None


class Quantize(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = cls.temporary.name
        cls.data = cls.path("data.npz")
        test_resume.pictures(cls.data, random.Random(5))
        # a network that knows these pictures: what accuracy there is to lose
        cls.model = cls.path("float.onnx")
        cls.run_steps("float.onnx", [{"method": "finetune", "epochs": 3, "batch": 32, "optimizer": "adam", "lr": 0.002}], MODEL)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    @classmethod
    def run_steps(cls, name, steps, model=None, data=True, status=0, threads="2"):
        with open(cls.path("recipe.json"), "w", encoding="ascii") as f:
            json.dump(steps, f)
        more = ["--data", cls.data, "--preprocess", PREPROCESS] if data else []
        done = subprocess.run([WORKER, "run", cls.path("recipe.json"), "--model", model or cls.model, *more, "--threads", threads, "--seed", "3", "-o",
                               cls.path(name)], capture_output=True, timeout=100, check=False)
        assert done.returncode == status, done.stdout[-2000:] + done.stderr
        last = json.loads(done.stdout.splitlines()[-1])
        return last["done"] if status == 0 else last["error"]

    def accuracy(self, name):
        done = subprocess.run([WORKER, "evaluate", self.path(name), "--data", self.data, "--preprocess", PREPROCESS],
                              capture_output=True, timeout=60, check=True)
        return json.loads(done.stdout)["accuracy"]

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def test_every_scheme_makes_a_file_that_answers(self):
        parent = self.accuracy("float.onnx")
        self.assertGreater(parent, 0.9)
        cases = [({"scheme": "int8", "observer": o}, 0.01, "int8") for o in ("mse", "minmax", "percentile", "entropy")]
        cases += [({"scheme": "int8", "equalize": True}, 0.01, "int8"), ({"scheme": "bf16"}, 0.01, "bf16"),
                  ({"scheme": "int4"}, 0.05, "int4"), ({"scheme": "fixed", "bits": 4}, 0.05, "int4"),
                  ({"scheme": "mixed", "budget": {"bytes": 0.16}}, 0.05, None),
                  ({"scheme": "mixed", "budget": {"max_drop": 0.02}}, 0.05, None),
                  ({"scheme": "fixed", "bits": 6, "activations": "float"}, 0.01, "codebook"),
                  ({"scheme": "dynamic"}, 0.01, None)]
        size = len(self.read("float.onnx"))
        for step, loss, form in cases:
            with self.subTest(**step):
                done = self.run_steps("out.onnx", [{"method": "quantize", **step}])
                self.assertLessEqual(parent - self.accuracy("out.onnx"), loss)
                self.assertLess(len(self.read("out.onnx")), 0.6 * size)
                if form:
                    self.assertEqual({layer["form"] for layer in done["layers"]}, {form})

    def test_the_same_seed_gives_the_same_bytes(self):
        step = {"method": "quantize", "scheme": "fixed", "bits": 3, "adaround": True, "equalize": True}
        for name, threads in (("a.onnx", "1"), ("b.onnx", "3")):
            self.run_steps(name, [dict(step, layers={"include": ["*conv*"]})], threads=threads)
        self.assertEqual(self.read("a.onnx"), self.read("b.onnx"))
        self.assertGreater(self.accuracy("a.onnx"), 0.8)

    def test_accuracy_control_takes_layers_back_until_the_bound_holds(self):
        step = {"method": "quantize", "scheme": "fixed", "bits": 2, "bias_correct": False}
        self.run_steps("bad.onnx", [step])
        control = dict(step, accuracy_control={"max_drop": 0.02})
        found = self.run_steps("good.onnx", [control])["steps"][0]
        told = found["accuracy_control"]
        self.assertLess(told["quantized"], told["before"] - 0.02)
        self.assertGreaterEqual(told["accuracy"], told["before"] - 0.02)
        self.assertGreater(len(told["reverted"]), 0)
        self.assertGreater(self.accuracy("good.onnx"), self.accuracy("bad.onnx"))
        reverted = {layer["id"] for layer in told["reverted"]}
        self.assertEqual({layer["id"] for layer in found["layers"] if "accuracy_control" in (layer.get("reason") or "")}, reverted)

    def test_what_cannot_be_is_refused_before_it_starts(self):
        for step, code, text in (
                ({"scheme": "mixed"}, "bad_request", "budget"),
                ({"scheme": "mixed", "budget": {"bytes": 0.01}}, "requirement_not_met", "of the parent"),
                ({"scheme": "fixed", "bits": 1}, "bad_request", "bits"),
                ({"scheme": "int8", "bits": 4}, "bad_request", "bits"),
                ({"scheme": "int4", "block": 1}, "bad_request", "block")):
            error = self.run_steps("out.onnx", [{"method": "quantize", **step}], status=1)
            self.assertEqual(error["code"], code)
            self.assertIn(text, error["message"])
        error = self.run_steps("out.onnx", [{"method": "quantize", "scheme": "fixed", "adaround": True}], data=False, status=1)
        self.assertEqual(error["code"], "data_required")


if __name__ == "__main__":
    WORKER, MODEL, PREPROCESS = sys.argv[1:4]
    unittest.main(argv=sys.argv[:1])
