"""kill -9 at random moments of uploads and jobs: after a restart everything that was acknowledged is there, nothing
half-done is, and a job that was cut off ends with the same bytes as an undisturbed one.

    python3 tests/api/crash.py BUILD [KILLS] [SEED]
"""

import hashlib
import os
import random
import shutil
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", ".."))
from tests.api.harness import Daemon  # noqa: E402

DATA = os.path.join(os.path.dirname(__file__), "..", "data")
STEPS = [{"method": "quantize", "scheme": "int8", "observer": "minmax"}]


def read(path):
    with open(path, "rb") as f:
        return f.read()


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Client:
    """Does things against the daemon until it dies, and remembers what was acknowledged."""

    def __init__(self, daemon, rng, model, dataset):
        self.daemon, self.rng, self.model, self.dataset = daemon, rng, model, dataset
        self.models, self.datasets, self.jobs, self.deleted, self.in_doubt = {}, set(), {}, set(), set()
        self.digests = {}  # model → digest of what its job made
        self.results = []
        self.n_datasets = 0  # those that were seen and removed
        self.n = 0

    def step(self):
        self.n += 1
        action = self.rng.choice(("upload", "upload", "dataset", "job", "delete"))
        if action == "upload":
            name = f"m{self.n}"
            body = self.model + self.padding()
            if self.daemon.put(f"/api/v1/models/{name}", body).status == 201:
                self.models[name] = sha256(body)
        elif action == "dataset":
            name = f"d{self.n % 5}-{self.n}"
            if self.daemon.put(f"/api/v1/datasets/{name}", self.dataset).status == 201:
                self.datasets.add(name)
        elif action == "job" and self.models and self.datasets:
            model = self.rng.choice(sorted(self.models))
            reply = self.daemon.post("/api/v1/jobs", {
                "kind": "compress", "model": model, "variant": f"v{self.n}", "dataset": self.rng.choice(sorted(self.datasets)),
                "steps": STEPS, "evaluate": False, "seed": 7})
            if reply.status == 202:
                self.jobs[reply.json()["id"]] = (model, f"v{self.n}")
        elif action == "delete" and len(self.models) > 4:
            busy = {m for m, _ in self.jobs.values()}
            name = next((m for m in sorted(self.models) if m not in busy), None)
            if name:
                self.in_doubt.add(name)
                if self.daemon.delete(f"/api/v1/models/{name}").status == 204:
                    self.deleted.add(name)
                    self.in_doubt.discard(name)
                    del self.models[name]

    def check_bytes(self, name, onnx):
        """The same job on the same file gives the same bytes, killed or not. Files that differ only in the padding
        differ in the recorded parent digest and the padding alone, so each model is compared with itself."""
        digest = self.digests.setdefault(name, sha256(onnx))
        assert digest == sha256(onnx), f"{name}: a job that was cut off ended with other bytes"

    def padding(self):
        # an unknown protobuf field (number 1000, bytes): other content, same network
        return b"\xc2\x3e\x04" + self.rng.randbytes(4)

    def run(self):
        try:
            while True:
                self.step()
        except (OSError, ValueError):
            pass  # the daemon died in the middle of a step
        except Exception as e:  # http.client has its own family
            if "http.client" not in type(e).__module__:
                raise


def check(daemon, client):
    listed = {m["name"] for m in daemon.get("/api/v1/models?limit=1000").json()["items"]}
    lost = set(client.models) - listed - client.in_doubt
    assert not lost, f"acknowledged models lost: {lost}"
    assert not client.deleted & listed, f"deleted models are back: {client.deleted & listed}"
    for name in listed & set(client.models):
        digest = daemon.get(f"/api/v1/models/{name}/variants/original").json()["digest"]
        assert digest == client.models[name], f"{name}: {digest} in place of {client.models[name]}"
    datasets = {d["name"] for d in daemon.get("/api/v1/datasets?limit=1000").json()["items"]}
    assert client.datasets <= datasets, f"acknowledged data sets lost: {client.datasets - datasets}"
    for job in client.jobs:
        assert daemon.get(f"/api/v1/jobs/{job}").status == 200, f"acknowledged job lost: {job}"


def check_files(daemon):
    """With nothing under way: no half-done file, and exactly the files that something names."""
    left = os.listdir(os.path.join(daemon.state, "tmp"))
    assert not left, f"temporary files stay: {left}"
    named = {v["digest"] for m in daemon.get("/api/v1/models?limit=1000").json()["items"]
             for v in daemon.get(f"/api/v1/models/{m['name']}/variants").json()["items"]}
    packs = daemon.get("/api/v1/datasets?limit=1000").json()["items"]
    blobs = {"sha256:" + b for b in os.listdir(os.path.join(daemon.state, "blobs"))}
    assert named <= blobs, f"files are missing: {named - blobs}"
    assert len(blobs - named) == (1 if packs else 0), f"files nobody names: {blobs - named}"  # one pack, always the same archive


def forget(daemon, client, keep):
    """Finished jobs and most models go, so that the state stays small over hundreds of rounds."""
    for job in list(client.jobs):
        state = daemon.get(f"/api/v1/jobs/{job}").json()["state"]
        if state in ("succeeded", "failed", "cancelled"):
            client.results.append((job, state, *client.jobs.pop(job)))
    while len(client.datasets) > keep and not client.jobs:
        name = min(client.datasets)
        reply = daemon.delete(f"/api/v1/datasets/{name}")
        assert reply.status == 204, reply
        client.datasets.discard(name)
        client.n_datasets += 1
    while len(client.models) > keep and not client.jobs:
        name = min(client.models)
        reply = daemon.delete(f"/api/v1/models/{name}?cascade=true")
        assert reply.status == 204 or (reply.status == 404 and name in client.in_doubt), reply
        del client.models[name]


def main():
    build, kills, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20, int(sys.argv[3]) if len(sys.argv) > 3 else 1
    rng = random.Random(seed)
    state = tempfile.mkdtemp(prefix="bonsaid-crash-")
    model = read(os.path.join(DATA, "..", "..", "clients", "demo", "lenet5_fashion.onnx"))
    dataset = read(os.path.join(DATA, "datasets", "fashion-tiny.tar"))
    daemon = Daemon(build, state=state)
    client = Client(daemon, rng, model, dataset)
    try:
        for k in range(kills):
            daemon.start()
            check(daemon, client)
            worker = threading.Thread(target=client.run, daemon=True)
            worker.start()
            time.sleep(rng.uniform(0.02, 1.2))
            daemon.kill()
            worker.join(30)
            assert not worker.is_alive(), "the client hangs"
            if k % 10 == 9:
                daemon.start()
                check(daemon, client)
                for job, (name, variant) in list(client.jobs.items()):
                    done = daemon.wait_job(job)
                    assert done["state"] == "succeeded", done
                    onnx = daemon.get(f"/api/v1/models/{name}/variants/{variant}/onnx")
                    assert onnx.status == 200, onnx
                    client.check_bytes(name, onnx.body)
                # those whose acknowledgement the kill cut off, too
                daemon.wait(lambda: not any(daemon.get(f"/api/v1/jobs?state={s}").json()["items"] for s in ("queued", "running")),
                            120, "all jobs end")
                check_files(daemon)
                forget(daemon, client, keep=4)
                check_files(daemon)
                daemon.stop()
        daemon.start()
        check(daemon, client)
        daemon.stop()
    finally:
        daemon.kill()
        shutil.rmtree(state, ignore_errors=True)
    print(f"{kills} kills: {len(client.models)} models, {client.n_datasets + len(client.datasets)} data sets, {len(client.results)} finished jobs; nothing acknowledged lost")


if __name__ == "__main__":
    main()
