"""What each layer of a model bears, asked over HTTP: a table of damages with advice, as JSON and as text; the same question
is answered at once; a kill in the middle changes nothing; what cannot be measured is refused when it is asked for.

    python3 tests/api/test_sensitivity.py BUILD
"""

import json
import os
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", ".."))
from tests.api.harness import Daemon  # noqa: E402

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
PRUNE = [{"method": "prune", "granularity": "weight", "scope": "layer", "sparsity": s} for s in (0.5, 0.95)]
INT8 = {"method": "quantize", "scheme": "int8"}


def read(*path):
    with open(os.path.join(ROOT, *path), "rb") as f:
        return f.read()


def fill(daemon):
    daemon.wait_ready()
    labels = read("clients", "demo", "labels.txt").decode().split()
    patch = {"labels": labels, "preprocess": json.loads(read("clients", "demo", "preprocess.json"))}
    for reply in (daemon.put("/api/v1/models/lenet", read("clients", "demo", "lenet5_fashion.onnx")),
                  daemon.request("PATCH", "/api/v1/models/lenet", patch),
                  daemon.put("/api/v1/datasets/fashion", read("tests", "data", "datasets", "fashion-tiny.tar"))):
        assert reply.status in (200, 201), reply
    return labels


class Sensitivity(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = cls.enterClassContext(Daemon(BUILD))
        cls.labels = fill(cls.daemon)

    def post(self, query="", **change):
        body = {"kind": "sensitivity", "model": "lenet", "dataset": "fashion", "methods": PRUNE, "samples": 64, **change}
        return self.daemon.post(f"/api/v1/jobs{query}", {k: v for k, v in body.items() if v is not None})

    def measure(self, **change):
        reply = self.post(**change)
        self.assertEqual(reply.status, 202, reply)
        job = self.daemon.wait_job(reply.json()["id"])
        self.assertEqual(job["state"], "succeeded", job)
        return job

    def test_each_layer_is_measured_alone_and_restored(self):
        job = self.measure(methods=[*PRUNE, INT8])
        table = job["result"]
        self.assertEqual((table["model"], table["from"], table["dataset"], table["damage"], table["samples"], table["split"]),
                         ("lenet", "original", "fashion", "kl", 64, "train"))
        self.assertTrue(table["digest"].startswith("sha256:"))
        self.assertEqual([m["layers"] for m in table["methods"]], [4, 4, 5])
        self.assertIn("sparsity=0.95", table["methods"][1]["label"])
        self.assertEqual(table["methods"][1]["step"], PRUNE[1])
        self.assertEqual(len(table["layers"]), 5)
        whole = [m["all"] for m in table["methods"]]
        self.assertGreater(whole[1]["damage"], 10 * whole[0]["damage"])
        self.assertLess(whole[2]["damage"], whole[0]["damage"])
        for row in table["layers"]:
            for cell in row["cells"]:
                for what in ("compressed", "restored"):
                    found = cell[what]
                    self.assertEqual(len(found["per_class"]), len(table["classes"]))
                    mean = sum(d * c["n"] for d, c in zip(found["per_class"], table["classes"])) / 64
                    self.assertAlmostEqual(mean, found["kl"], delta=1e-3 * found["kl"] + 1e-9)
                    self.assertTrue(found["ci95"][0] <= found["accuracy_difference"] <= found["ci95"][1])
                    damages = [w["damage"] for w in found["worst"]]
                    self.assertEqual(damages, sorted(damages, reverse=True))
            strengths = {c["method"]: c["compressed"]["damage"] for c in row["cells"]}
            if 1 in strengths:
                self.assertGreater(strengths[1], strengths[0])
                # one layer alone does less than all, and all but one less than all
                self.assertLess(strengths[1], whole[1]["damage"])
        self.assertEqual({c["class"] for c in table["classes"]}, {self.labels[c["index"]] for c in table["classes"]})
        self.assertEqual(len(table["advice"]), 3)
        item = table["methods"][1]["all"]["worst"][0]["index"]
        self.assertEqual(self.daemon.get(f"/api/v1/datasets/fashion/items/{item}?split=train").status, 200)

    def test_one_layer_alone_is_what_a_job_of_that_layer_makes(self):
        layers = {"include": ["/fc1/Gemm"]}
        table = self.measure(methods=[{**PRUNE[1], "layers": layers}])["result"]
        self.assertEqual([row["id"] for row in table["layers"]], ["/fc1/Gemm"])
        cell = table["layers"][0]["cells"][0]
        self.assertEqual(cell["compressed"], table["methods"][0]["all"])
        self.assertEqual(cell["restored"]["damage"], 0)
        body = {"kind": "compress", "model": "lenet", "variant": "fc1", "steps": [{**PRUNE[1], "layers": layers}]}
        job = self.daemon.wait_job(self.daemon.post("/api/v1/jobs", body).json()["id"])
        self.assertEqual(job["state"], "succeeded", job)
        again = self.measure(methods=[{**PRUNE[0], "layers": {"include": ["/fc2/Gemm"]}}], **{"from": "fc1"})["result"]
        self.assertEqual(again["from"], "fc1")
        self.assertNotEqual(again["digest"], table["digest"])

    def test_it_is_told_as_text(self):
        job = self.measure()
        reply = self.daemon.get(f"/api/v1/jobs/{job['id']}", headers={"Accept": "text/plain"})
        self.assertEqual((reply.status, reply.headers["Content-Type"]), (200, "text/plain; charset=utf-8"))
        text = reply.body.decode()
        for row in job["result"]["layers"]:
            line = next(s for s in text.splitlines() if s.startswith(row["id"]))
            self.assertIn(f"{row['cells'][0]['compressed']['damage']:.3g}", line)
        for word in ("Kullback", "sparsity=0.95", "worst class", "worst: sample", job["result"]["advice"][0]["text"]):
            self.assertIn(word, text)

    def test_the_same_question_is_answered_at_once(self):
        first = self.measure(seed=7)
        begin = time.monotonic()
        reply = self.post(seed=7).json()
        self.assertEqual(reply["state"], "succeeded", reply)
        self.assertLess(time.monotonic() - begin, 5)
        self.assertEqual(reply["result"]["answered_by"], first["id"])
        self.assertEqual({**first["result"], "answered_by": first["id"]}, reply["result"])
        self.assertEqual(self.post(seed=7).json()["result"]["answered_by"], first["id"])
        self.assertNotIn("answered_by", self.measure(seed=8)["result"])
        self.assertNotIn("answered_by", self.measure(seed=7, samples=63)["result"])

    def test_lists_leave_the_table_out(self):
        job = self.measure()
        row = next(j for j in self.daemon.get("/api/v1/jobs").json()["items"] if j["id"] == job["id"])
        self.assertNotIn("layers", row["result"])
        self.assertEqual(row["result"]["advice"], job["result"]["advice"])
        self.assertNotIn("question", json.dumps(job))

    def test_the_dry_run_names_layers_and_methods(self):
        reply = self.post("?dry_run=true", methods=[*PRUNE, INT8])
        self.assertEqual(reply.status, 200, reply)
        plan = reply.json()
        self.assertEqual(plan["networks"], 3 + 2 * (4 + 4 + 5))
        self.assertEqual({row["id"]: row["methods"] for row in plan["layers"]}["/fc1/Gemm"], [0, 1, 2])
        self.assertEqual(len(plan["methods"][0]["affected"]), 4)

    def refused(self, status, code, *words, **change):
        for query in ("", "?dry_run=true"):
            reply = self.post(query, **change)
            self.assertEqual((reply.status, reply.json()["code"]), (status, code), reply)
            for word in words:
                self.assertIn(word, reply.json()["error"])

    def test_what_cannot_be_is_refused_when_asked_for(self):
        self.refused(404, "not_found", model="nobody")
        self.refused(404, "not_found", **{"from": "nothing"})
        self.refused(404, "not_found", "dataset", dataset="nothing")
        self.refused(400, "bad_request", "dataset is missing", dataset=None)
        self.refused(400, "bad_request", "methods is missing", methods=None)
        self.refused(400, "bad_request", "methods", methods=[])
        self.refused(400, "bad_request", "methods", methods={"method": "prune"})
        self.refused(400, "bad_request", "methods[1].method", "'trim'", methods=[INT8, {"method": "trim"}])
        self.refused(400, "unknown_field", "methods[0].colour", methods=[{**INT8, "colour": 1}])
        self.refused(400, "bad_request", "methods[0]", "training",
                     methods=[{**INT8, "recover": {"finetune": {"epochs": 1}}}])
        self.refused(400, "bad_request", "methods[0]", "training", methods=[{"method": "finetune", "epochs": 1}])
        self.refused(400, "bad_request", "methods[1]", "training",
                     methods=[INT8, {"method": "quantize", "scheme": "fixed", "qat": {"epochs": 1}}])
        self.refused(400, "bad_request", "methods[0].layers.include", "'conv'", "/conv1/Conv",
                     methods=[{**INT8, "layers": {"include": ["conv"]}}])
        self.refused(400, "bad_request", "samples", samples=0)
        self.refused(400, "bad_request", "seed", seed=-1)
        self.refused(400, "unknown_field", "steps", steps=[INT8])
        self.refused(400, "unknown_field", "limits.colour", limits={"colour": 1})

    def test_the_client_prints_the_table(self):
        env = {**os.environ, "BONSAI_URL": f"http://127.0.0.1:{self.daemon.port}"}
        command = [os.path.join(BUILD, "bonsai"), "sensitivity", "lenet", "--methods", json.dumps(PRUNE), "--dataset", "fashion",
                   "--samples", "50", "--watch"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("/conv2/Conv", done.stdout)
        self.assertIn("with only this layer compressed", done.stdout)


class Interrupted(unittest.TestCase):
    MANY = [{"method": "prune", "granularity": "weight", "scope": "layer", "sparsity": 0.3 + 0.04 * i} for i in range(16)]

    def test_a_kill_in_the_middle_changes_nothing_and_it_can_be_cancelled(self):
        body = {"kind": "sensitivity", "model": "lenet", "dataset": "fashion", "methods": self.MANY, "samples": 100, "seed": 1}
        with Daemon(BUILD) as daemon:
            fill(daemon)

            def progress(job):
                return daemon.get(f"/api/v1/jobs/{job}").json()["progress"]["fraction"]

            def kept(job):
                return os.path.exists(os.path.join(daemon.state, "checkpoints", job, "sensitivity"))

            cut = daemon.post("/api/v1/jobs", body).json()["id"]
            daemon.wait(lambda: kept(cut), 60, "a layer is kept")
            daemon.kill()
            daemon.start()
            job = daemon.wait_job(cut)
            self.assertEqual(job["state"], "succeeded", job)
            log = daemon.get(f"/api/v1/jobs/{cut}/log").body.decode()
            self.assertEqual(job["attempts"], 2)
            self.assertIn("goes on behind layer", log)
            self.assertIn("of their layers computed", log)
            daemon.wait(lambda: not os.listdir(os.path.join(daemon.state, "checkpoints")), 10, "checkpoints are gone")
            self.assertEqual(daemon.delete(f"/api/v1/jobs/{cut}").status, 204)  # and its answer with it
            whole = daemon.wait_job(daemon.post("/api/v1/jobs", body).json()["id"])
            self.assertNotIn("answered_by", whole["result"])
            self.assertEqual(whole["result"], job["result"])
            stopped = daemon.post("/api/v1/jobs", {**body, "seed": 2}).json()["id"]
            daemon.wait(lambda: progress(stopped) > 0, 60, "it has begun")
            daemon.post(f"/api/v1/jobs/{stopped}/cancel")
            self.assertEqual(daemon.wait_job(stopped, 20)["state"], "cancelled")


if __name__ == "__main__":
    BUILD = sys.argv.pop(1)
    unittest.main(verbosity=2)
