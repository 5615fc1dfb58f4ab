#!/usr/bin/env python3
"""What a training beside it costs serving, on loopback: python3 beside_training.py BUILD MODEL.onnx

The model is served at half of what the machine can do at most (an open loop of Poisson arrivals), in turns with and
without a job that trains it. Prints the 99th percentiles and, for the training, how much of a core it had; ends with
`beside_training ratio=R`: 1.2 times the percentile without, by the median of the rounds, over the one with.

Where it may, the session is put in front of what else runs on the machine (autogroup); within it nothing changes."""
import io
import json
import os
import random
import statistics
import struct
import sys
import time
import zipfile

root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(root, "tests", "api"))
sys.path.insert(0, os.path.join(root, "tests", "bench"))
import harness
from serving import Load, cpu_us, upload

GOAL, ROUNDS, TURN_S, SIDE = 1.2, 10, 1.6, 32


def take_machine():
    try:
        os.setsid()
        with open("/proc/self/autogroup", "w", encoding="ascii") as f:
            f.write("-20")
    except OSError:
        print("beside_training: other work on the machine counts, too")


def npy(kind, shape, data):
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    head += " " * (63 - (len(head) + 10) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + data


def pictures(n):
    rng = random.Random(3)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("images.npy", npy("|u1", (n, SIDE, SIDE, 3), rng.randbytes(n * SIDE * SIDE * 3)))
        z.writestr("labels.npy", npy("|u1", (n,), bytes(i % 10 for i in range(n))))
    return out.getvalue()


def request_file(daemon):
    """The path of a body of random numbers, and the header that says where they begin."""
    path = os.path.join(daemon.state, "request")
    size = 3 * SIDE * SIDE * 4
    name = daemon.get("/v2/models/net").json()["inputs"][0]["name"]
    head = json.dumps({"inputs": [{"name": name, "shape": [1, 3, SIDE, SIDE], "datatype": "FP32",
                                   "parameters": {"binary_data_size": size}}]}).encode()
    with open(path, "wb") as f:
        f.write(head + bytes(size))
    return path, f"Inference-Header-Content-Length: {len(head)}"


class Training:
    def __init__(self, daemon):
        reply = daemon.post("/api/v1/jobs", {
            "kind": "compress", "model": "net", "variant": "trained", "dataset": "noise", "evaluate": False,
            "steps": [{"method": "finetune", "epochs": 1000, "batch": 128, "lr": 1e-5}]})
        assert reply.status == 202, reply
        self.daemon, self.path = daemon, f"/api/v1/jobs/{reply.json()['id']}"

    def state(self):
        return self.daemon.get(self.path).json()

    def go_on(self):
        if self.state()["state"] == "cancelled":
            assert self.daemon.post(f"{self.path}/retry").status == 202
        self.daemon.wait(lambda: self.state()["state"] == "running" and "loss" in self.state()["progress"]["message"], 30,
                         "it learns")
        return self

    def stop(self):
        self.daemon.post(f"{self.path}/cancel")
        self.daemon.wait_job(self.path.rsplit("/", 1)[1], 20)

    def worker(self):
        pid = self.daemon.process.pid
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as f:
                for child in f.read().split():
                    return int(child)
        raise RuntimeError("the worker has ended")


def turn(load, rate):
    n = int(rate * TURN_S)
    load.process.stdin.write(f"{n} {rate:.3f}\n")
    load.process.stdin.flush()
    fields = [float(x) for x in load.process.stdout.readline().split()]
    return fields[1], fields[3]


def main(build, model):
    take_machine()
    with harness.Daemon(build) as daemon:
        daemon.wait_ready()
        upload(daemon, "net", model)
        assert daemon.put("/api/v1/datasets/noise?split=train", pictures(2000)).status == 201
        time.sleep(3)  # the tuner has measured
        body, header = request_file(daemon)
        load = Load(build, daemon.port, "/v2/models/net/infer", "application/octet-stream", body, 32, header)
        load.run(500)
        rate = 0.5 * max(1e6 / load.run(1500)[0] for _ in range(3))
        training = Training(daemon)
        training.go_on()
        training.stop()
        without, beside, share = [], [], []
        for _ in range(ROUNDS):
            without.append(turn(load, rate))
            training.go_on()
            worker = training.worker()
            cpu, begin = cpu_us(worker), time.monotonic()
            beside.append(turn(load, rate))
            share.append((cpu_us(worker) - cpu) / 1e6 / (time.monotonic() - begin))
            training.stop()
        load.end()
    ratio = statistics.median(b[1] / a[1] for a, b in zip(without, beside))
    print(f"beside_training: {rate:.0f} requests a second; without p50 {statistics.median(a[0] for a in without):.0f} us, "
          f"p99 {statistics.median(a[1] for a in without):.0f}; beside a training p50 "
          f"{statistics.median(b[0] for b in beside):.0f}, p99 {statistics.median(b[1] for b in beside):.0f}: "
          f"{ratio:.3f} times by the rounds' median ({', '.join(f'{b[1] / a[1]:.2f}' for a, b in zip(without, beside))}); "
          f"the training had {100 * statistics.median(share):.0f}% of a core")
    print(f"beside_training ratio={GOAL / ratio:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
