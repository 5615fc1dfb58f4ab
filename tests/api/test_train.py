"""An operator without a model starts from pictures alone: a job of kind `train` becomes an ordinary model, with labels
and preprocessing, that answers, compresses and goes on learning; what cannot be trained is refused when it is asked
for; a kill in the middle changes nothing.

    python3 tests/api/test_train.py BUILD
"""

import io
import json
import os
import struct
import sys
import tarfile
import unittest
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", ".."))
from tests.api.harness import Daemon, has_sanitizer  # noqa: E402

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
DATA = os.path.join(ROOT, "tests", "data", "datasets", "fashion-tiny.tar")
LENET300 = {"zoo": "lenet300"}


def read(path):
    with open(path, "rb") as f:
        return f.read()


def png(width, height, pixel):
    """Of one colour, (r, g, b) or a grey."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    kind = 0 if isinstance(pixel, int) else 2
    row = b"\0" + (bytes([pixel]) if kind == 0 else bytes(pixel)) * width
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b""))


def tar(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
    return out.getvalue()


def colours(split, n=40, side=32):
    """Two classes that a straight line divides."""
    return [(f"{split}/{name}/{i}.png", png(side, side, (base[0] + i, base[1], base[2] + i // 2)))
            for name, base in (("red", (200, 20, 10)), ("blue", (10, 40, 200))) for i in range(n)]


class Train(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = cls.enterClassContext(Daemon(BUILD))
        cls.daemon.wait_ready()
        for name, data in (("tiny", read(DATA)), ("colours", tar(colours("train") + colours("test", 10))),
                           ("only_test", tar(colours("test"))), ("one_class", tar(colours("train")[:40])),
                           ("plain", tar([(f"{i}.png", png(8, 8, i)) for i in range(40)]))):
            reply = cls.daemon.put(f"/api/v1/datasets/{name}", data)
            assert reply.status == 201, reply

    def post(self, query="", **change):
        body = {"kind": "train", "model": "made", "network": LENET300, "dataset": "tiny", "epochs": 1, "batch": 16, **change}
        return self.daemon.post(f"/api/v1/jobs{query}", {k: v for k, v in body.items() if v is not None})

    def train(self, model, **change):
        reply = self.post(model=model, **change)
        self.assertEqual(reply.status, 202, reply)
        job = self.daemon.wait_job(reply.json()["id"])
        self.assertEqual(job["state"], "succeeded", job)
        return job

    def refused(self, status, code, *words, **change):
        for query in ("", "?dry_run=true"):
            reply = self.post(query, **change)
            self.assertEqual((reply.status, reply.json()["code"]), (status, code), reply)
            for word in words:
                self.assertIn(word, reply.json()["error"])

    def test_pictures_become_a_model_that_answers(self):
        job = self.train("clothes", epochs=20, lr=0.05, seed=3)
        result = job["result"]
        self.assertEqual((result["model"], result["number"], result["parameters"]), ("clothes", 1, 266610))
        self.assertGreater(result["evaluation"]["accuracy"], 0.5)
        self.assertEqual(result["evaluation"]["n"], 100)
        self.assertEqual([m["epoch"] for m in job["metrics"] if m["name"] == "loss"], list(range(1, 21)))
        model = self.daemon.get("/api/v1/models/clothes").json()
        self.assertEqual(model["labels"], sorted(model["labels"]))
        self.assertEqual(len(model["labels"]), 10)
        self.assertEqual((model["preprocess"]["color"], model["preprocess"]["resize"]["size"]), ("gray", [28, 28]))
        self.assertNotEqual(model["preprocess"].get("source"), "default")
        self.assertTrue(0.2 < model["preprocess"]["mean"][0] < 0.4 and 0.25 < model["preprocess"]["std"][0] < 0.45, model)
        original = self.daemon.get("/api/v1/models/clothes/variants/original").json()
        self.assertEqual((original["verdicts"], original["job"]), ([], job["id"]))
        self.assertEqual(original["evaluation"]["accuracy"], result["evaluation"]["accuracy"])
        self.assertEqual(original["latency"]["batch"], 1)
        with tarfile.open(DATA) as t:
            picture = t.extractfile("train/Trouser/" + next(
                n.rsplit("/", 1)[1] for n in t.getnames() if n.startswith("train/Trouser/"))).read()
        reply = self.daemon.post("/v2/models/clothes/infer?top=1", picture)
        self.assertEqual(reply.status, 200, reply)
        self.assertEqual(reply.json()["classes"][0]["label"], "Trouser")

    def test_the_file_carries_labels_and_preprocess_to_another_name(self):
        self.train("source")
        onnx = self.daemon.get("/api/v1/models/source/variants/original/onnx").body
        self.assertEqual(self.daemon.put("/api/v1/models/copy", onnx).status, 201)
        models = [self.daemon.get(f"/api/v1/models/{m}").json() for m in ("source", "copy")]
        for key in ("labels", "preprocess", "digest"):
            self.assertEqual(models[0][key], models[1][key])

    def test_the_same_seed_gives_the_same_bytes_and_another_does_not(self):
        digests = [self.train(name, seed=seed)["result"]["digest"] for name, seed in (("s1", 1), ("s1_again", 1), ("s2", 2))]
        self.assertEqual(digests[0], digests[1])
        self.assertNotEqual(digests[0], digests[2])

    def test_a_made_model_is_compressed_and_learns_on(self):
        self.train("parent", network={"zoo": "resnet20", "width": 0.5, "depth": 0.34}, dataset="colours", epochs=3, lr=0.02)
        body = {"kind": "compress", "model": "parent", "variant": "small", "dataset": "colours",
                "steps": [{"method": "quantize", "scheme": "int8"}]}
        job = self.daemon.wait_job(self.daemon.post("/api/v1/jobs", body).json()["id"])
        self.assertEqual(job["state"], "succeeded", job)
        child = self.train("child", network=None, **{"from": "parent"}, dataset="colours", epochs=2, lr=0.01)
        self.assertEqual(child["result"]["evaluation"]["accuracy"], 1.0)
        models = [self.daemon.get(f"/api/v1/models/{m}").json() for m in ("parent", "child")]
        self.assertEqual(models[0]["labels"], ["blue", "red"])
        for key in ("labels", "preprocess"):
            self.assertEqual(models[0][key], models[1][key])
        self.refused(422, "method_not_applicable", network=None, **{"from": "parent~small"}, dataset="colours")

    def test_a_time_limit_ends_it_in_good_order(self):
        job = self.train("quick", epochs=10000, minutes=0.02)
        self.assertLess(len(job["result"]["training"]["epochs"]), 10000)
        self.assertLess(job["result"]["training"]["epochs"][-1]["learning_rate"], 0.001)

    def test_the_dry_run_foretells_the_network(self):
        reply = self.post("?dry_run=true", network={"zoo": "vgg8"}, dataset="colours")
        self.assertEqual(reply.status, 200, reply)
        plan = reply.json()
        self.assertEqual((plan["network"], plan["input"], plan["classes"]), ("vgg8", [3, 32, 32], 2))
        self.assertAlmostEqual(plan["macs"] / 1e6, 153, delta=2)
        self.assertGreater(plan["memory_bytes"], 1 << 20)
        self.assertEqual(plan["steps"], plan["pictures"] // 16)
        self.assertEqual(plan["options"]["lr"], 0.1)  # the network's own default
        self.assertEqual(self.daemon.get("/api/v1/models/made").status, 404)

    def test_what_there_is_can_be_listed(self):
        methods = self.daemon.get("/api/v1/methods").json()
        networks = {n["name"]: n for n in methods["networks"]}
        self.assertEqual(len(networks), 10)
        self.assertEqual(networks["resnet20"]["width"], [0.25, 8])
        for key in ("network", "from", "minutes", "seed", "epochs", "lr", "augment"):
            self.assertIn(key, methods["train"]["properties"])

    def test_what_cannot_be_is_refused_when_asked_for(self):
        self.refused(404, "not_found", "dataset", "nothing", dataset="nothing")
        self.refused(400, "bad_request", "dataset is missing", dataset=None)
        self.refused(400, "bad_name", model="a b")
        self.refused(400, "bad_name", "stats", model="stats")
        self.refused(400, "bad_request", "model is missing", model=None)
        self.refused(422, "no_train_split", dataset="only_test")
        self.refused(422, "bad_dataset", dataset="one_class")
        self.refused(422, "bad_dataset", dataset="plain")
        self.refused(400, "bad_request", "network.zoo", "'resnet21'", "lenet300, lenet5", network={"zoo": "resnet21"})
        self.refused(400, "bad_request", "network.zoo is missing", network={"width": 1})
        self.refused(400, "bad_request", "network.width", network={"zoo": "resnet20", "width": 9})
        self.refused(400, "bad_request", "network.depth", network={"zoo": "lenet300", "depth": 2})
        self.refused(400, "unknown_field", "network.colour", network={"zoo": "lenet300", "colour": 1})
        self.refused(400, "bad_request", "network is not an object", network="lenet300")
        self.refused(400, "bad_request", "network and from", network=None)
        self.refused(404, "not_found", "from", network=None, **{"from": "nobody"})
        self.refused(400, "unknown_field", "colour", colour=1)
        self.refused(400, "bad_request", "epochs", epochs=0)
        self.refused(400, "bad_request", "lr", lr="high")
        self.refused(400, "bad_request", "optimizer", "sgd, adam", optimizer="lion")
        self.refused(400, "bad_request", "minutes", minutes=-1)
        self.refused(400, "bad_request", "seed", seed=-1)
        self.refused(400, "unknown_field", "limits.colour", limits={"colour": 1})
        self.refused(422, "bad_dataset", "batch", batch=4096)
        self.refused(422, "method_not_applicable", "sides of 8 to 1024", network={"zoo": "vgg8", "size": 4})
        if not has_sanitizer(BUILD):  # which takes more address space than there may be
            self.too_large()

    def too_large(self):
        self.refused(507, "memory_budget", limits={"memory_bytes": 300 << 20}, network={"zoo": "vgg8", "size": 512, "width": 4},
                     dataset="colours")

    def test_names_are_reserved_from_the_first_moment(self):
        slow = self.post(model="slow", epochs=10000).json()["id"]
        try:
            self.refused(409, "name_taken", "slow", model="slow")
            self.assertEqual(self.daemon.get("/api/v1/models/slow").status, 404)
            reply = self.daemon.put("/api/v1/models/slow", read(os.path.join(ROOT, "clients", "demo", "lenet5_fashion.onnx")))
            self.assertEqual((reply.status, reply.json()["code"]), (409, "name_taken"), reply)
            reply = self.daemon.delete("/api/v1/datasets/tiny")
            self.assertEqual((reply.status, reply.json()["code"]), (409, "in_use"), reply)
        finally:
            self.daemon.post(f"/api/v1/jobs/{slow}/cancel")
        self.assertEqual(self.daemon.wait_job(slow)["state"], "cancelled")
        self.assertEqual(self.post("?dry_run=true", model="slow").status, 200)
        self.train("taken")
        self.refused(409, "name_taken", "taken", model="taken")

    def test_a_model_that_is_learnt_from_is_in_use(self):
        self.train("used")
        job = self.post(model="user", network=None, **{"from": "used"}, epochs=10000).json()["id"]
        try:
            reply = self.daemon.delete("/api/v1/models/used")
            self.assertEqual((reply.status, reply.json()["code"]), (409, "in_use"), reply)
            self.assertEqual(reply.json()["details"]["users"], [{"kind": "job", "id": job}])
        finally:
            self.assertEqual(self.daemon.delete("/api/v1/models/used?cascade=true").status, 204)
        self.assertEqual(self.daemon.wait_job(job)["state"], "cancelled")


class Kill(unittest.TestCase):
    def test_a_kill_in_the_middle_changes_nothing(self):
        body = {"kind": "train", "network": LENET300, "dataset": "tiny", "epochs": 60, "batch": 16, "seed": 5}
        with Daemon(BUILD) as daemon:
            daemon.wait_ready()
            self.assertEqual(daemon.put("/api/v1/datasets/tiny", read(DATA)).status, 201)
            whole = daemon.wait_job(daemon.post("/api/v1/jobs", {**body, "model": "whole"}).json()["id"])
            cut = daemon.post("/api/v1/jobs", {**body, "model": "cut"}).json()["id"]
            for epochs in (2, 6):
                daemon.wait(lambda n=epochs: len([m for m in daemon.get(f"/api/v1/jobs/{cut}").json()["metrics"]
                                                  if m["name"] == "loss"]) >= n, 60, f"{epochs} epochs are over")
                daemon.kill()
                daemon.start()
            self.assertEqual(daemon.get("/api/v1/models/cut").status, 404)
            job = daemon.wait_job(cut)
            self.assertEqual(job["state"], "succeeded", job)
            self.assertEqual(job["attempts"], 3)
            self.assertEqual(job["result"]["digest"], whole["result"]["digest"])
            self.assertEqual(daemon.get("/api/v1/models/cut").json()["digest"], whole["result"]["digest"])
            for folder in ("checkpoints", "tmp"):  # emptied once the end is written
                daemon.wait(lambda f=folder: not os.listdir(os.path.join(daemon.state, f)), 10, f"{folder} is empty")


if __name__ == "__main__":
    BUILD = sys.argv.pop(1)
    unittest.main(verbosity=2)
