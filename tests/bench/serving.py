#!/usr/bin/env python3
"""What serving costs, on loopback, with a daemon of its own: python3 serving.py BUILD requests|added|start [ORT_FOLDER]

  requests  LeNet as JSON (784 numbers) at 1, 8 and 32 connections, beside node:http with onnxruntime-node, in turns
  added     latency of a binary request of 4, 8, 12 and 16 KB less the time of its plan (the reply's Server-Timing),
            beside the round trip of a server that does nothing
  start     time from exec to /v2/health/ready with ten variants

Every part ends with "NAME ratio=R"; in `added` and `start` the goal of the project stands for the other side."""
import json
import os
import random
import statistics
import subprocess
import sys
import time

root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(root, "tests", "api"))
import harness

LENET = os.path.join(root, "clients", "demo", "lenet5_fashion.onnx")
ADDED_GOAL_US, START_GOAL_S = 80, 2.0


class Load:
    """http_load on one server; its connections are made once, before anything is measured."""

    def __init__(self, build, port, path, kind, body, connections, header=None):
        command = [os.path.join(build, "tests/bench/http_load"), str(port), path, kind, body, str(connections)]
        self.process = subprocess.Popen(command + ([header] if header else []), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def run(self, n):
        """(wall us per request, median latency, median added)"""
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        return [float(x) for x in self.process.stdout.readline().split()]

    def end(self):
        self.process.stdin.close()
        self.process.wait(20)


def cpu_us(pid):
    """Processor time a process has had: true on a busy machine, too."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def upload(daemon, name, path):
    with open(path, "rb") as f:
        reply = daemon.put(f"/api/v1/models/{name}", f.read())
    assert reply.status in (200, 201), reply
    reply = daemon.post(f"/v2/repository/models/{name}/load")
    assert reply.status == 200, reply


def write_request(path):
    rng = random.Random(5)
    data = [round(rng.randrange(256) / 255, 6) for _ in range(784)]
    request = {"inputs": [{"name": "input", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": data}]}
    with open(path, "w", encoding="ascii") as f:
        json.dump(request, f)
    return request


def check_equal(daemon, peer_port, request):
    ours = daemon.post("/v2/models/lenet/infer", request).json()["outputs"][0]["data"]
    peer = harness.Daemon(daemon.build)
    peer.port = peer_port
    theirs = peer.post("/", request).json()["outputs"][0]["data"]
    assert all(abs(a - b) < 1e-3 for a, b in zip(ours, theirs)), (ours, theirs)


def requests(build, ort):
    peer = subprocess.Popen(["node", os.path.join(root, "tests/bench/peer_server.mjs"), LENET], text=True,
                            stdout=subprocess.PIPE, env={**os.environ, "ORT_FOLDER": ort})
    try:
        peer_port = int(peer.stdout.readline().rsplit(":", 1)[1])
        with harness.Daemon(build) as daemon:
            daemon.wait_ready()
            upload(daemon, "lenet", LENET)
            body = os.path.join(daemon.state, "request.json")
            check_equal(daemon, peer_port, write_request(body))
            ratios = [race(build, (daemon.port, daemon.process.pid), (peer_port, peer.pid), body, n) for n in (1, 8, 32)]
    finally:
        peer.kill()
        peer.wait(10)
    print(f"lenet_requests ratio={min(ratios):.3f}")


def race(build, server, peer_server, body, connections, rounds=9, n=1500):
    """`server`: its port and process."""
    ours = Load(build, server[0], "/v2/models/lenet/infer", "application/json", body, connections)
    peer = Load(build, peer_server[0], "/", "application/json", body, connections)
    rate, peer_rate, ratio, latency = [], [], [], []
    for side in (ours, peer):
        side.run(n // 2)
    cpu = [cpu_us(pid) for _, pid in (server, peer_server)]
    for i in range(rounds):
        a, b = (ours.run(n), peer.run(n)) if i % 2 else reversed((peer.run(n), ours.run(n)))
        rate.append(1e6 / a[0])
        peer_rate.append(1e6 / b[0])
        ratio.append(b[0] / a[0])
        latency.append((a[1], b[1]))
    cpu = [(cpu_us(s[1]) - before) / (rounds * n) for s, before in zip((server, peer_server), cpu)]
    ours.end()
    peer.end()
    print(f"lenet_requests: {connections} connections: ours {statistics.median(rate):.0f}/s (p50 "
          f"{statistics.median(x[0] for x in latency):.0f} us), node:http with onnxruntime-node "
          f"{statistics.median(peer_rate):.0f}/s (p50 {statistics.median(x[1] for x in latency):.0f} us), "
          f"ratio {statistics.median(ratio):.2f}; processor time a request {cpu[0]:.0f} and {cpu[1]:.0f} us", flush=True)
    return statistics.median(ratio)


def write_binary(path, batch):
    """Bytes of JSON before the tensor's."""
    size = 784 * 4 * batch
    head = json.dumps({"inputs": [{"name": "input", "shape": [batch, 1, 28, 28], "datatype": "FP32",
                                   "parameters": {"binary_data_size": size}}],
                       "parameters": {"binary_data_output": True}}).encode()
    with open(path, "wb") as f:
        f.write(head + bytes(size))
    return len(head)


def added(build, _):
    """Beside a server that only takes the bytes and sends some back: the machine's own part of a round trip. Once as
    the kernel spreads the threads, once with all of them on one core: between the two lies what it costs to wake a
    halted core, which on a virtual machine is more than all else."""
    everywhere = os.sched_getaffinity(0)
    worst = added_on(build, "all cores")
    try:
        os.sched_setaffinity(0, {max(everywhere)})
        added_on(build, "one core")
    finally:
        os.sched_setaffinity(0, everywhere)
    print(f"added_time ratio={ADDED_GOAL_US / worst:.3f}")


def added_on(build, cores):
    worst = 0
    bare = subprocess.Popen([os.path.join(build, "tests/bench/bare_server"), "600"], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        bare_port = int(bare.stdout.readline())
        with harness.Daemon(build) as daemon:
            daemon.wait_ready()
            upload(daemon, "lenet", LENET)
            for batch in (1, 2, 4, 5):
                worst = max(worst, added_of_batch(build, daemon, bare_port, batch, cores))
    finally:
        bare.stdin.close()
        bare.wait(10)
    return worst


def added_of_batch(build, daemon, bare_port, batch, cores, rounds=9, n=2000):
    body = os.path.join(daemon.state, "binary")
    head = f"Inference-Header-Content-Length: {write_binary(body, batch)}"
    kind = "application/octet-stream"
    ours = Load(build, daemon.port, "/v2/models/lenet/infer", kind, body, 1, head)
    bare = Load(build, bare_port, "/", kind, body, 1, head)
    for side in (ours, bare):
        side.run(n)
    runs, floor = [], []
    for _ in range(rounds):
        runs.append(ours.run(n))
        floor.append(bare.run(n)[1])
    ours.end()
    bare.end()
    us, floor_us = statistics.median(r[2] for r in runs), statistics.median(floor)
    print(f"added_time: {cores}, {784 * 4 * batch} bytes: latency p50 {statistics.median(r[1] for r in runs):.1f} us, "
          f"of it not the plan's {us:.1f} us (best round {min(r[2] for r in runs):.1f}); a bare round trip "
          f"{floor_us:.1f} us", flush=True)
    return us


def start(build, _):
    daemon = harness.Daemon(build)
    with daemon:
        daemon.wait_ready()
        for i in range(10):
            upload(daemon, f"model{i}", LENET)
        times = []
        for _ in range(7):
            daemon.stop()
            begin = time.monotonic()
            daemon.start()
            while daemon.get("/v2/health/ready").status != 200:
                time.sleep(0.002)
            times.append(time.monotonic() - begin)
        index = daemon.post("/v2/repository/index").json()
        states = ", ".join(sorted({v["state"] for v in index}))
        print(f"start_ready: {len(index)} variants ({states}), exec to ready: median {statistics.median(times):.3f} s,"
              f" worst {max(times):.3f} s")
    print(f"start_ready ratio={START_GOAL_S / statistics.median(times):.3f}")


if __name__ == "__main__":
    part = {"requests": requests, "added": added, "start": start}[sys.argv[2]]
    part(sys.argv[1], sys.argv[3] if len(sys.argv) > 3 else "")
