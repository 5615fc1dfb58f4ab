"""The way of a job over HTTP: what the dry run foretells, what the job then does, its events, cancel, retry and
idempotency, and the table at the end.

    python3 tests/api/test_jobs.py BUILD
"""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", ".."))
from tests.api.harness import Daemon, has_sanitizer  # noqa: E402

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
DEMO = os.path.join(ROOT, "clients", "demo")
DATA = os.path.join(ROOT, "tests", "data", "datasets", "fashion-tiny.tar")
NDJSON = {"Accept": "application/x-ndjson"}
INT8 = [{"method": "quantize", "scheme": "int8", "layers": {"exclude": ["/fc*"]}}]


def read(path):
    with open(path, "rb") as f:
        return f.read()


def fill(daemon):
    """A model and a data set."""
    daemon.wait_ready()
    card = {"preprocess": json.loads(read(os.path.join(DEMO, "preprocess.json"))),
            "labels": read(os.path.join(DEMO, "labels.txt")).decode().split()}
    assert daemon.put("/api/v1/models/lenet", read(os.path.join(DEMO, "lenet5_fashion.onnx"))).status == 201
    reply = daemon.request("PATCH", "/api/v1/models/lenet", card)
    assert reply.status == 200, reply
    assert daemon.put("/api/v1/datasets/tiny", read(DATA)).status == 201


def leave_room(filler, room):
    """Fills the disk but for `room` bytes; whoever writes at the same moment may have taken some already."""
    def left():
        disk = os.statvfs(os.path.dirname(filler))
        return disk.f_bavail * disk.f_bsize

    with open(filler, "wb", buffering=0) as f:
        try:
            f.write(bytes(max(left() - room, 0)))
        except OSError as e:
            if e.errno != errno.ENOSPC:
                raise
        if left() < room:
            f.truncate(max(os.fstat(f.fileno()).st_size - (room - left()), 0))


class Jobs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = cls.enterClassContext(Daemon(BUILD))
        fill(cls.daemon)

    def job(self, variant, key=None, **more):
        body = {"kind": "compress", "model": "lenet", "variant": variant, "dataset": "tiny", "steps": INT8, **more}
        return self.daemon.post("/api/v1/jobs", body, headers={"Idempotency-Key": key} if key else {})

    def loaded_layers(self, variant):
        """By name, once the variant is in memory: then they have kernels."""
        path = f"/api/v1/models/lenet/variants/{variant}"
        self.daemon.wait(lambda: self.daemon.get(path).json()["state"] == "ready", 60, f"{variant} is loaded")
        return {row["name"]: row for row in self.daemon.get(path).json()["layers"]}

    def test_the_dry_run_foretells_each_layer(self):
        body = {"kind": "compress", "model": "lenet", "variant": "dry", "dataset": "tiny", "steps": INT8}
        plan = self.daemon.post("/api/v1/jobs?dry_run=true", body)
        self.assertEqual(plan.status, 200, plan)
        plan = plan.json()
        card = self.daemon.get("/api/v1/models/lenet").json()
        macs = {layer["id"]: layer["macs"] for layer in card["layers"]}
        self.assertEqual(plan["affected"], ["/conv1/Conv", "/conv2/Conv"])
        self.assertEqual(plan["skipped"], ["/fc1/Gemm", "/fc2/Gemm", "/fc3/Gemm"])
        self.assertEqual(plan["macs"], card["macs"])
        for layer in plan["layers"]:
            self.assertGreater(layer["macs"], 0)
            self.assertEqual(layer["macs"], macs[layer["id"]], layer)
            self.assertEqual(layer["bytes"] < layer["bytes_before"], layer["action"] == "change", layer)
        self.assertEqual(self.daemon.get("/api/v1/models/lenet/variants/dry").status, 404)

    def test_a_job_does_what_was_foretold_and_says_so(self):
        made = self.job("small")
        self.assertEqual(made.status, 202, made)
        job = self.daemon.wait_job(made.json()["id"])
        self.assertEqual(job["state"], "succeeded", job)
        variant = self.daemon.get("/api/v1/models/lenet/variants/small").json()
        forms = {layer["name"]: layer["form"] for layer in variant["layers"]}
        self.assertEqual((forms["/conv1/Conv"], forms["/fc1/Gemm"]), ("int8", "dense"), forms)
        timed = {layer["name"]: layer["latency_us"] for layer in variant["layers"] if layer["latency_us"] is not None}
        self.assertGreater(timed["/conv2/Conv"], 0, variant["layers"])
        self.assertLess(sum(timed.values()), 3 * variant["latency"]["p99_us"], timed)
        self.assertGreater(variant["nonzero"], variant["parameters"] // 2)
        self.assertIsNone(variant["bytes_file_compressed"])
        packed = self.daemon.get("/api/v1/models/lenet/variants/small/onnx?container=zst").body
        variant = self.daemon.get("/api/v1/models/lenet/variants/small").json()
        self.assertEqual(variant["bytes_file_compressed"], len(packed))
        self.assertLess(len(packed), variant["bytes_file"])
        events = [json.loads(line) for line in
                  self.daemon.get(f"/api/v1/jobs/{job['id']}/events", headers=NDJSON).body.splitlines()]
        self.assertEqual([e["id"] for e in events], sorted(e["id"] for e in events))
        self.assertEqual(events[-1]["event"], "done")
        self.assertEqual([e["data"]["state"] for e in events if e["event"] == "state"], ["queued", "running", "succeeded"])
        table = self.daemon.get("/api/v1/models/lenet/comparison", headers={"Accept": "text/csv"}).body.decode()
        rows = {line.split(",")[0]: line.split(",") for line in table.splitlines()}
        self.assertLess(int(rows["small"][7]), int(rows["original"][7]))
        self.assertEqual(rows["small"][1], rows["original"][1])

    def test_a_network_learns_and_the_same_seed_gives_the_same_bytes(self):
        steps = [{"method": "finetune", "epochs": 3, "batch": 16, "lr": 0.005,
                  "augment": {"crop_padding": 1, "rotate": 5, "scale": 0.05, "cutout": 0.1, "color": 0.1}}]
        first, again = (self.job(name, steps=steps, seed=7) for name in ("learnt", "learnt_again"))
        self.assertEqual(first.status, 202, first)
        for made in (first, again):
            job = self.daemon.wait_job(made.json()["id"])
            self.assertEqual(job["state"], "succeeded", job)
        variants = [self.daemon.get(f"/api/v1/models/lenet/variants/{v}").json() for v in ("learnt", "learnt_again")]
        self.assertEqual(variants[0]["digest"], variants[1]["digest"])
        original = self.daemon.get("/api/v1/models/lenet/variants/original").json()
        self.assertNotEqual(variants[0]["digest"], original["digest"])
        self.assertGreater(job["result"]["evaluation"]["accuracy"], 0.75)
        self.assertEqual({layer["form"] for layer in variants[0]["layers"] if layer["params"]}, {"dense"})

    def test_a_training_goes_on_after_kill_stop_and_cancel(self):
        def epochs():
            return [m["epoch"] for m in daemon.get(path).json()["metrics"] if m["name"] == "loss"]

        with Daemon(BUILD) as daemon:
            fill(daemon)
            body = {"kind": "compress", "model": "lenet", "dataset": "tiny", "seed": 7, "evaluate": False,
                    "steps": [{"method": "finetune", "epochs": 60, "batch": 16, "lr": 0.001}]}
            undisturbed = daemon.wait_job(daemon.post("/api/v1/jobs", {**body, "variant": "one"}).json()["id"])
            self.assertEqual(undisturbed["state"], "succeeded", undisturbed)
            job = daemon.post("/api/v1/jobs", {**body, "variant": "two"}).json()["id"]
            path = f"/api/v1/jobs/{job}"
            for end in (daemon.kill, daemon.stop, None):
                seen = len(epochs())
                daemon.wait(lambda n=seen: len(epochs()) > n + 3, 60, "some epochs more")
                if end:
                    end()
                    daemon.start()
                    daemon.wait_ready()
                else:
                    daemon.post(f"{path}/cancel")
                    self.assertEqual(daemon.wait_job(job)["state"], "cancelled")
                    self.assertEqual(daemon.post(f"{path}/retry").status, 202)
            done = daemon.wait_job(job)
            self.assertEqual(done["state"], "succeeded", done)
            # one that was over when the end came may be told again, none is learned again from the first
            self.assertEqual(sorted(set(epochs())), list(range(1, 61)))
            self.assertLess(len(epochs()), 60 + 4)
            digests = {daemon.get(f"/api/v1/models/lenet/variants/{v}").json()["digest"] for v in ("one", "two")}
            self.assertEqual(len(digests), 1, digests)
            folder = os.path.join(daemon.state, "checkpoints")
            daemon.wait(lambda: not os.listdir(folder), 10, "nothing is left to go on from")

    def test_a_full_disk_ends_a_training_and_its_checkpoint_stays_good(self):
        state = tempfile.mkdtemp(prefix="bonsaid-full-")
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", state], capture_output=True, check=False).returncode:
            os.rmdir(state)
            self.skipTest("a tmpfs cannot be mounted here")
        daemon, filler = Daemon(BUILD, "--picture-cache", "0", state=state), os.path.join(state, "filler")
        body = {"kind": "compress", "model": "lenet", "dataset": "tiny", "seed": 7, "evaluate": False,
                "steps": [{"method": "finetune", "epochs": 60, "batch": 16, "lr": 0.001}]}
        try:
            daemon.start()
            fill(daemon)
            undisturbed = daemon.wait_job(daemon.post("/api/v1/jobs", {**body, "variant": "one"}).json()["id"])
            self.assertEqual(undisturbed["state"], "succeeded", undisturbed)
            path = "/api/v1/jobs/" + daemon.post("/api/v1/jobs", {**body, "variant": "two"}).json()["id"]
            daemon.wait(lambda: len(daemon.get(path).json()["metrics"]) > 15, 60, "some epochs")
            leave_room(filler, 300 << 10)  # for the store; a checkpoint of a megabyte does not find any
            job = daemon.wait_job(path.rsplit("/", 1)[1])
            self.assertEqual((job["state"], job["error"]["code"]), ("failed", "disk_budget"), job)
            seen = len(job["metrics"])
            self.assertLess(seen, 5 * 60)
            os.unlink(filler)
            self.assertEqual(daemon.post(f"{path}/retry").status, 202)
            job = daemon.wait_job(path.rsplit("/", 1)[1])
            self.assertEqual(job["state"], "succeeded", job)
            # it has gone on from there: the epoch that could not be kept came twice, none before it
            self.assertLessEqual(sum(m["name"] == "loss" for m in job["metrics"]), 61)
            digests = {daemon.get(f"/api/v1/models/lenet/variants/{v}").json()["digest"] for v in ("one", "two")}
            self.assertEqual(len(digests), 1, digests)
        finally:
            daemon.kill()
            subprocess.run(["umount", "-l", state], check=False)
            shutil.rmtree(state, ignore_errors=True)

    def test_what_training_cannot_have_is_refused_before_the_first_step(self):
        body = {"kind": "train", "model": "big", "network": {"zoo": "vgg8", "width": 4}, "dataset": "tiny", "epochs": 1,
                "batch": 32}
        needed = self.daemon.post("/api/v1/jobs?dry_run=true", body)
        self.assertEqual(needed.status, 200, needed)
        if not has_sanitizer(BUILD):  # which takes more address space than there may be
            refused = self.daemon.post("/api/v1/jobs", {**body, "limits": {"memory_bytes": 300 << 20}})
            self.assertEqual((refused.status, refused.json()["code"]), (507, "memory_budget"), refused)
        self.assertEqual(self.daemon.get("/api/v1/jobs?model=big").json()["items"], [])

    def test_an_unfinished_job_is_cancelled_before_it_is_forgotten(self):
        made = self.job("endless", steps=[{"method": "finetune", "epochs": 10000, "batch": 16}])
        path = f"/api/v1/jobs/{made.json()['id']}"
        reply = self.daemon.delete(path)
        self.assertEqual((reply.status, reply.json()["code"]), (409, "in_use"), reply)
        self.assertIn(f"POST {path}/cancel", reply.json()["error"])
        self.assertIn(self.daemon.post(f"{path}/cancel").status, (200, 202))
        self.daemon.wait_job(made.json()["id"])
        self.assertEqual(self.daemon.delete(path).status, 204)

    def test_pictures_are_decoded_once_and_what_is_kept_of_them_cannot_spoil_a_training(self):
        body = {"kind": "compress", "model": "lenet", "dataset": "tiny", "seed": 3, "evaluate": False,
                "steps": [{"method": "finetune", "epochs": 2, "batch": 16, "lr": 0.001, "augment": {"mixup": 0.4}}]}
        digests = set()

        def learn(daemon, variant):
            job = daemon.wait_job(daemon.post("/api/v1/jobs", {**body, "variant": variant}).json()["id"])
            self.assertEqual(job["state"], "succeeded", job)
            digests.add(daemon.get(f"/api/v1/models/lenet/variants/{variant}").json()["digest"])

        with Daemon(BUILD, "--picture-cache", "0") as daemon:
            fill(daemon)
            learn(daemon, "without")
            self.assertFalse(os.path.exists(os.path.join(daemon.state, "pictures")))
        with Daemon(BUILD) as daemon:
            fill(daemon)
            learn(daemon, "first")
            folder = os.path.join(daemon.state, "pictures")
            name, = os.listdir(folder)
            pack = next(b for b in os.listdir(os.path.join(daemon.state, "blobs")) if b == name.split("-")[0])
            with open(os.path.join(folder, name), "r+b") as f:
                data = f.read()
                n, size = int.from_bytes(data[16:24], "little"), int.from_bytes(data[24:32], "little")
                self.assertEqual((size, len(data)), (28 * 28, 128 + n * (8 + size)))
                there = [any(data[at:at + 8]) for at in range(128, len(data), 8 + size)]
                self.assertGreater(sum(there), 0.9 * n)
                learn(daemon, "again")
                f.seek(1000)
                f.write(bytes(len(data) - 1000))
            learn(daemon, "spoilt")
            self.assertEqual(len(digests), 1, digests)
            self.assertEqual(os.listdir(folder), [name])
            self.assertEqual(daemon.request("DELETE", "/api/v1/datasets/tiny").status, 204)
            self.assertEqual(os.listdir(folder), [], pack)

    def test_the_schema_tells_of_what_is_nested(self):
        methods = {m["name"]: m for m in self.daemon.get("/api/v1/methods").json()["items"]}
        augment = methods["finetune"]["schema"]["properties"]["augment"]
        self.assertEqual({k: v["default"] for k, v in augment["properties"].items()},
                         {"crop_padding": 4, "flip": True, "rotate": 0, "scale": 0, "cutout": 0, "mixup": 0, "color": 0})
        self.assertEqual((augment["properties"]["mixup"]["maximum"], augment["additionalProperties"]), (1, False))

    def test_the_parent_teaches_what_a_step_has_lost(self):
        spoil = {"method": "finetune", "epochs": 1, "lr": 1, "momentum": 0, "clip": 4, "batch": 16}
        learn = {"epochs": 15, "batch": 16, "lr": 0.003, "optimizer": "adam"}
        accuracy = {}
        for name, recover in (("spoilt", None), ("taught", {"finetune": learn, "distill": {"labels": False}}),
                              ("taught_both", {"finetune": learn, "distill": {"knowledge": [{"weight": 0.5, "temperature": 2}]}})):
            made = self.job(name, steps=[{**spoil, **({"recover": recover} if recover else {})}], seed=3)
            self.assertEqual(made.status, 202, made)
            job = self.daemon.wait_job(made.json()["id"])
            self.assertEqual(job["state"], "succeeded", job)
            accuracy[name] = job["result"]["evaluation"]["accuracy"]
        self.assertLess(accuracy["spoilt"] + 0.05, min(accuracy["taught"], accuracy["taught_both"]), accuracy)

    def test_what_cannot_be_learnt_is_refused(self):
        job = self.daemon.wait_job(self.job("never", steps=[{"method": "finetune", "batch": 4096}]).json()["id"])
        self.assertEqual((job["state"], job["error"]["code"]), ("failed", "bad_dataset"), job)
        words = {"method": "encode", "form": {"code": "product"}, "dim": 4, "words": 16, "layers": {"include": ["/fc1*"]}}
        made = self.job("never", steps=[words, {"method": "finetune"}])
        self.assertEqual((made.status, made.json()["code"]), (422, "method_not_applicable"), made)
        self.assertIn("steps[1]: node '/fc1/Gemm': its weights are encoded (product)", made.json()["error"])
        made = self.job("never", steps=[{"method": "finetune", "recover": {"distill": {"knowledge": [{"kind": "touch"}]}}}])
        self.assertEqual(made.status, 400, made)
        self.assertIn("steps[0].recover.distill.knowledge[0].kind: 'touch' is not one of logits", made.json()["error"])
        made = self.job("never", steps=[INT8[0], {"method": "encode", "form": {"structure": "dense"}, "sparsity": 0.9}])
        self.assertEqual(made.status, 400, made)
        self.assertTrue(made.json()["error"].startswith("steps[1].sparsity: "), made)
        made = self.job("never", steps=[{"method": "finetune", "layers": {"include": ["/conv9*"]}}])
        self.assertEqual(made.status, 400, made)
        self.assertIn("steps[0].layers.include: '/conv9*' matches no layer; the nearest are '/conv1/Conv'", made.json()["error"])
        made = self.job("never", steps=[{"method": "prune", "macs": 0.001}])
        self.assertEqual((made.status, made.json()["code"]), (422, "requirement_not_met"), made)
        self.assertIn("the least that channel pruning can leave is 0.", made.json()["error"])
        made = self.job("never", steps=[{"method": "prune", "sparsity": 0.5, "overrides": {"/conv1*": {"scope": "layer"}}}])
        self.assertEqual(made.status, 400, made)
        self.assertIn('steps[0].overrides["/conv1*"].scope holds for a whole step', made.json()["error"])
        made = self.job("never", steps=[{"method": "finetune", "augment": {"flip": 1}}])
        self.assertEqual((made.status, made.json()["error"]), (400, "steps[0].augment.flip is not true or false"), made)
        made = self.job("never", steps=[{"method": "finetune", "augment": {"mixup": 2}}])
        self.assertEqual(made.status, 400, made)
        made = self.job("never", steps=[{"method": "finetune", "dataset": 1}])
        self.assertEqual((made.status, made.json()["code"]), (400, "unknown_field"), made)

    def test_layers_that_are_encoded_are_seen_and_left_alone(self):
        book = {"method": "encode", "form": {"code": "lut4"}, "activations": "float", "layers": {"include": ["/fc*"]}}
        quantize = {"method": "quantize"}
        job = self.daemon.wait_job(self.job("book", steps=[book]).json()["id"])
        self.assertEqual(job["state"], "succeeded", job)
        layers = self.loaded_layers("book")
        self.assertEqual([layers[f"/{n}"]["form"] for n in ("conv1/Conv", "fc1/Gemm")], ["dense", "codebook"])
        # the activations are floats: the kernel has to have floats
        self.assertEqual([layers[f"/{n}"]["decoded"] for n in ("conv1/Conv", "fc1/Gemm")], [False, True])
        self.assertLess(layers["/fc1/Gemm"]["bytes"], layers["/fc1/Gemm"]["params"])
        self.assertGreater(layers["/fc1/Gemm"]["nonzero"], layers["/fc1/Gemm"]["params"] // 2)

        body = {"kind": "compress", "model": "lenet", "variant": "never", "dataset": "tiny", "from": "book"}
        plan = self.daemon.post("/api/v1/jobs?dry_run=true", {**body, "steps": [quantize]}).json()
        reasons = {row["id"]: row["reason"] for row in plan["layers"]}
        self.assertEqual(plan["affected"], ["/conv1/Conv", "/conv2/Conv"], plan)
        self.assertEqual(reasons["/fc1/Gemm"], "its weights are encoded already")
        for row in plan["layers"]:
            self.assertEqual(row["bytes_before"] < 2 * layers[row["id"]]["params"], row["id"].startswith("/fc"), row)
        two = self.daemon.post("/api/v1/jobs?dry_run=true", {**body, "from": "original", "steps": [book, quantize]})
        self.assertEqual(two.status, 200, two)
        self.assertEqual([row["reason"] for row in two.json()["layers"] if row["id"].startswith("/fc")],
                         ["its weights are encoded already"] * 3)

        made = self.daemon.post("/api/v1/jobs", {**body, "variant": "learned_book", "steps": [{"method": "finetune", "epochs": 1, "batch": 32}]})
        job = self.daemon.wait_job(made.json()["id"])
        self.assertEqual(job["state"], "succeeded", job)
        taught = self.loaded_layers("learned_book")
        self.assertEqual({n: layer["form"] for n, layer in taught.items()}, {n: layer["form"] for n, layer in layers.items()})
        self.assertEqual(taught["/fc1/Gemm"]["bytes"], layers["/fc1/Gemm"]["bytes"])

        made = self.daemon.wait_job(self.daemon.post("/api/v1/jobs", {**body, "variant": "both", "steps": [quantize]}).json()["id"])
        self.assertEqual(made["state"], "succeeded", made)
        both = self.loaded_layers("both")
        self.assertEqual([both[f"/{n}"]["form"] for n in ("conv1/Conv", "fc1/Gemm")], ["int8", "codebook"])
        self.assertFalse(both["/conv2/Conv"]["decoded"])

    def test_a_key_used_twice_makes_one_job(self):
        first, again = self.job("once", key="k"), self.job("once", key="k")
        self.assertEqual((first.status, again.status), (202, 202), again)
        self.assertEqual(first.json()["id"], again.json()["id"])
        other = self.job("another", key="k")
        self.assertEqual((other.status, other.json()["code"]), (409, "idempotency_key_reused"))
        self.daemon.wait_job(first.json()["id"])

    def test_a_cancelled_job_frees_the_name_and_can_be_retried(self):
        before = [self.job(f"before{i}").json()["id"] for i in range(3)]
        last = self.job("late").json()["id"]
        reply = self.daemon.post(f"/api/v1/jobs/{last}/cancel")
        self.assertEqual(reply.status, 202, reply)
        self.assertEqual(self.daemon.wait_job(last)["state"], "cancelled")
        self.assertEqual(self.daemon.get("/api/v1/models/lenet/variants/late").status, 404)
        self.assertEqual(self.daemon.post(f"/api/v1/jobs/{last}/retry").status, 202)
        for job in before + [last]:
            self.assertEqual(self.daemon.wait_job(job)["state"], "succeeded")
        self.assertEqual(self.daemon.get("/api/v1/models/lenet/variants/late").status, 200)


if __name__ == "__main__":
    BUILD = sys.argv.pop(1)
    unittest.main()
