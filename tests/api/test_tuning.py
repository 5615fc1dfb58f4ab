"""Serve first, tune when idle: what a client sees of it, against a real daemon.

    python3 tests/api/test_tuning.py BUILD
"""

import os
import struct
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", ".."))
from tests.api.harness import Daemon  # noqa: E402

MODELS = os.path.join(os.path.dirname(__file__), "..", "data", "models")
BUILD = None


def upload(daemon):
    with open(os.path.join(MODELS, "mnist-8.onnx"), "rb") as f:
        reply = daemon.put("/api/v1/models/mnist", f.read())
    assert reply.status == 201, reply


def infer(daemon):
    data = [i % 17 / 17 for i in range(28 * 28)]
    body = {"inputs": [{"name": "Input3", "datatype": "FP32", "shape": [1, 1, 28, 28], "data": data}]}
    reply = daemon.post("/v2/models/mnist/infer", body)
    assert reply.status == 200, reply
    return reply.json()["outputs"][0]["data"]


def kernels(daemon):
    variant = daemon.get("/api/v1/models/mnist/variants/original").json()
    return {layer["name"]: layer["kernel"] for layer in variant["layers"]}


def bits(numbers):
    return [struct.pack("f", x) for x in numbers]


class Tuning(unittest.TestCase):
    def test_a_variant_is_tuned_when_idle_and_times_outlive_the_daemon(self):
        d = Daemon(BUILD)
        times = os.path.join(d.state, "kernels.timings")
        with d:
            d.wait_ready()
            upload(d)
            first = infer(d)
            Daemon.wait(lambda: os.path.exists(times), 60, "kernels are measured")
            for a, b in zip(first, infer(d)):
                self.assertAlmostEqual(a, b, delta=1e-4 * (1 + abs(a)))
            d.stop()
            with open(times, encoding="utf-8") as f:
                self.assertEqual(f.readline(), "bonsaid timings 1\n")
            d.start()
            d.wait_ready()
            again = infer(d)
            for a, b in zip(first, again):
                self.assertAlmostEqual(a, b, delta=1e-4 * (1 + abs(a)))
            self.assertIn("conv_f32_onednn", " ".join(k for k in kernels(d).values() if k))

    def test_a_damaged_file_of_times_is_said_and_no_harm(self):
        d = Daemon(BUILD)
        with open(os.path.join(d.state, "kernels.timings"), "wb") as f:
            f.write(b"bonsaid timings 1\n" + bytes(range(256)))
        with d:
            d.wait_ready()
            upload(d)
            infer(d)
            self.assertIn("are not used", d.stderr())

    def test_deterministic_measures_nothing_and_answers_the_same_bits(self):
        d = Daemon(BUILD, "--deterministic")
        with d:
            d.wait_ready()
            upload(d)
            first, names = infer(d), kernels(d)
            d.stop()
            self.assertFalse(os.path.exists(os.path.join(d.state, "kernels.timings")))
            d.start()
            d.wait_ready()
            self.assertEqual(bits(infer(d)), bits(first))
            self.assertEqual(kernels(d), names)

    def test_kernels_can_be_kept_from_being_measured(self):
        with Daemon(BUILD, "--tune=false") as d:
            d.wait_ready()
            upload(d)
            infer(d)
            self.assertFalse(os.path.exists(os.path.join(d.state, "kernels.timings")))


if __name__ == "__main__":
    BUILD = sys.argv.pop(1)
    unittest.main(verbosity=1)
