"""Starts a daemon, makes a model with one variant and hands its page to page.mjs: python3 run.py BUILD NODE_FOLDER."""

import io
import json
import os
import subprocess
import sys
import tarfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, ROOT)
from tests.api.harness import Daemon  # noqa: E402

DEMO = os.path.join(ROOT, "clients", "demo")
LABEL = "Trouser"  # the class a LeNet confuses least


def read(*path):
    with open(os.path.join(ROOT, *path), "rb") as f:
        return f.read()


def picture_of(tar, label):
    with tarfile.open(fileobj=io.BytesIO(tar)) as t:
        member = next(m for m in t if m.isfile() and m.name.split("/")[-2] == label)
        return t.extractfile(member).read()


def main():
    build, folder = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    tar = read("tests", "data", "datasets", "fashion-tiny.tar")
    with Daemon(build) as d:
        assert d.put("/api/v1/models/lenet5", read("clients", "demo", "lenet5_fashion.onnx")).status == 201
        labels = read("clients", "demo", "labels.txt").decode().split()
        patch = {"labels": labels, "preprocess": json.loads(read("clients", "demo", "preprocess.json"))}
        assert d.request("PATCH", "/api/v1/models/lenet5", patch).status == 200
        assert d.put("/api/v1/datasets/fashion", tar).status == 201
        reply = d.post("/api/v1/jobs", {"kind": "compress", "model": "lenet5", "variant": "int8", "dataset": "fashion",
                                        "steps": [{"method": "quantize", "scheme": "int8"}]})
        assert reply.status == 202, reply
        job = d.wait_job(reply.json()["id"], 120)
        assert job["state"] == "succeeded", job
        reply = d.post("/api/v1/jobs", {"kind": "sensitivity", "model": "lenet5", "dataset": "fashion", "samples": 64, "methods": [
            {"method": "prune", "granularity": "weight", "scope": "layer", "sparsity": s} for s in (0.5, 0.95)]})
        assert reply.status == 202, reply
        job = d.wait_job(reply.json()["id"], 120)
        assert job["state"] == "succeeded", job
        reply = d.post("/api/v1/jobs", {"kind": "compress", "model": "lenet5", "variant": "taught", "dataset": "fashion",
                                        "steps": [{"method": "finetune", "epochs": 5000, "batch": 16, "lr": 0.001}]})
        assert reply.status == 202, reply
        picture = os.path.join(folder, "picture.png")
        with open(picture, "wb") as f:
            f.write(picture_of(tar, LABEL))
        done = subprocess.run(["node", os.path.join(folder, "page.mjs"), f"http://127.0.0.1:{d.port}", picture, "lenet5", "int8",
                               LABEL], cwd=folder, timeout=180, check=False)
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
