#!/usr/bin/env python3
"""bonsai-worker train: a network from an archive by one command, the same bytes from any number of threads and over
kills, and the file knows how it is fed.

    python3 test_train.py BONSAI-WORKER DATA.tar
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import unittest

WORKER = DATA = None


class Train(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def spec(self, **spec):
        with open(self.path("spec.json"), "w", encoding="ascii") as f:
            json.dump(spec, f)
        return self.path("spec.json")

    def command(self, out, *more, **spec):
        spec = {"network": {"zoo": "lenet300"}, "epochs": 3, "batch": 16, **spec}
        return [WORKER, "train", self.spec(**{k: v for k, v in spec.items() if v is not None}), "--data", DATA, *more,
                "-o", self.path(out)]

    def train(self, out, *more, status=0, **spec):
        p = subprocess.run(self.command(out, *more, **spec), capture_output=True, timeout=100, check=False)
        self.assertEqual(p.returncode, status, p.stdout[-2000:] + p.stderr)
        last = json.loads(p.stdout.splitlines()[-1]) if p.stdout else {}
        return last.get("done" if status == 0 else "error")

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def test_threads_change_nothing_and_the_seed_does(self):
        net = {"network": {"zoo": "resnet20", "width": 0.25, "depth": 0.34}, "epochs": 1,
               "augment": {"crop_padding": 2, "flip": True}}
        self.train("one.onnx", "--threads", "1", **net)
        self.train("three.onnx", "--threads", "3", **net)
        self.train("other.onnx", "--seed", "5", **net)
        self.assertEqual(self.read("one.onnx"), self.read("three.onnx"))
        self.assertNotEqual(self.read("one.onnx"), self.read("other.onnx"))

    def test_what_was_killed_goes_on_to_the_same_bytes(self):
        rng = random.Random(1)
        self.train("whole.onnx", epochs=30)
        for _ in range(4):
            p = subprocess.Popen(self.command("cut.onnx", "--checkpoint", self.path("ck"), "--checkpoint-seconds", "0", epochs=30),
                                 stdout=subprocess.DEVNULL)
            try:
                p.wait(rng.uniform(0.1, 0.8))
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        self.train("cut.onnx", "--checkpoint", self.path("ck"), "--checkpoint-seconds", "0", epochs=30)
        self.assertEqual(self.read("whole.onnx"), self.read("cut.onnx"))

    def test_the_file_knows_how_it_is_fed(self):
        done = self.train("net.onnx", epochs=10, lr=0.02)
        self.assertEqual((done["network"], done["parameters"]), ("lenet300", 266610))
        p = subprocess.run([WORKER, "evaluate", self.path("net.onnx"), "--data", DATA], capture_output=True, timeout=60, check=True)
        self.assertEqual(json.loads(p.stdout)["accuracy"], done["test_accuracy"])
        self.assertGreater(done["test_accuracy"], 0.4)
        p = subprocess.run([WORKER, "check", self.path("net.onnx")], capture_output=True, timeout=60, check=True)
        summary = json.loads(p.stdout)
        self.assertEqual((summary["labels"], summary["preprocess"]), (done["labels"], done["preprocess"]))

    def test_it_goes_on_with_a_file_and_does_not_tell_where_it_lay(self):
        self.train("first.onnx", epochs=2)
        done = self.train("second.onnx", network=None, **{"from": self.path("first.onnx")})
        self.assertEqual(done["labels"][0], "Ankle_boot")
        self.assertNotIn(self.folder.encode(), self.read("second.onnx"))
        error = self.train("third.onnx", status=1, network=None, **{"from": self.path("nowhere.onnx")})
        self.assertIn("from", error["message"])

    def test_all_of_the_other_archive_judges(self):
        done = self.train("net.onnx", "--test", DATA, epochs=1)
        self.assertEqual(done["evaluation"]["n"], 100)

    def test_minutes_end_it(self):
        done = self.train("net.onnx", "--minutes", "0.02", epochs=10000)
        self.assertLess(len(done["training"]["epochs"]), 10000)

    def test_mistakes(self):
        for more in (["--seed", "x"], ["--minutes", "0"], ["--threads", "0"], ["--colour"], ["extra"]):
            self.train("net.onnx", *more, status=2)
        self.assertEqual(self.train("net.onnx", status=1, network={"zoo": "x"})["code"], "bad_request")
        self.assertEqual(self.train("net.onnx", status=1, batch=4096)["code"], "bad_dataset")
        self.assertEqual(self.train("net.onnx", status=1, colour=1)["code"], "unknown_field")
        self.assertFalse(os.path.exists(self.path("net.onnx")))

    def test_help_names_networks_and_options(self):
        text = subprocess.run([WORKER, "train", "--help"], capture_output=True, timeout=60, check=True).stdout.decode()
        for word in ("SPEC.json", "lenet300", "shufflenet_v2", "weight_decay", "--minutes"):
            self.assertIn(word, text)


if __name__ == "__main__":
    WORKER, DATA = os.path.abspath(sys.argv.pop(1)), os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
