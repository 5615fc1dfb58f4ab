#!/usr/bin/env python3
"""What models cost in memory, with a daemon of its own: python3 memory.py BUILD big VGG16.onnx | resident FILE...

  big       upload of a large file: peak of daemon and worker (VmHWM), time to 201, time to the first answer
  resident  the files as models, all loaded: bytes_resident beside the growth of the daemon's Pss; what unload gives back

`big` ends with the ratio of the file's size to the daemon's peak while it took the file in, `resident` with counted
bytes over measured ones."""
import http.client
import json
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "api"))
import harness

MIB = 1 << 20


def status(pid, key):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
            return next((int(line.split()[1]) * 1024 for line in f if line.startswith(key + ":")), 0)
    except OSError:
        return 0


def rollup(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in f if line.endswith("kB\n")}


class Children(threading.Thread):
    """Watches the peak of the daemon's children until it is ended."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.anon, self.is_ended = pid, 0, 0, False

    def run(self):
        while not self.is_ended:
            for task in os.listdir(f"/proc/{self.pid}/task"):
                try:
                    with open(f"/proc/{self.pid}/task/{task}/children", encoding="ascii") as f:
                        for child in f.read().split():
                            self.peak = max(self.peak, status(child, "VmHWM"))
                            self.anon = max(self.anon, status(child, "RssAnon"))
                except OSError:
                    pass
            time.sleep(0.005)

    def end(self):
        self.is_ended = True
        self.join()
        return self


def put_file(daemon, name, path):
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=300, blocksize=MIB)
    with open(path, "rb") as f:
        connection.request("PUT", f"/api/v1/models/{name}", f, headers={"Content-Length": str(os.path.getsize(path))})
        reply = connection.getresponse()
        assert reply.status == 201, reply.read()
    connection.close()


def infer(daemon, name, shape):
    size = 4
    for n in shape:
        size *= n
    head = json.dumps({"inputs": [{"name": "x", "shape": shape, "datatype": "FP32",
                                   "parameters": {"binary_data_size": size}}]}).encode()
    reply = daemon.post(f"/v2/models/{name}/infer", head + bytes(size), timeout=120,
                        headers={"Inference-Header-Content-Length": str(len(head))})
    assert reply.status == 200, reply


def timed(what, *args):
    begin = time.monotonic()
    what(*args)
    return time.monotonic() - begin


def big(build, files):
    size = os.path.getsize(files[0])
    with harness.Daemon(build) as daemon:
        daemon.wait_ready()
        pid = daemon.process.pid
        worker = Children(pid)
        worker.start()
        taken = timed(put_file, daemon, "vgg16", files[0])
        worker.end()
        peak = status(pid, "VmHWM")
        first = timed(infer, daemon, "vgg16", [1, 3, 224, 224])
        later = min(timed(infer, daemon, "vgg16", [1, 3, 224, 224]) for _ in range(5))
        after = rollup(pid)
        print(f"big_upload: {size / 1e6:.0f} MB: 201 after {taken:.2f} s; peak of the daemon {peak / MIB:.0f} MiB, of the "
              f"worker {worker.peak / MIB:.0f} MiB (anonymous {worker.anon / MIB:.0f} MiB)")
        print(f"big_upload: first answer {first:.2f} s later (it loads and plans), the next in {later * 1e3:.0f} ms; then "
              f"VmHWM {status(pid, 'VmHWM') / MIB:.0f} MiB, Rss {after['Rss'] / MIB:.0f} MiB, anonymous "
              f"{after['Anonymous'] / MIB:.0f} MiB; bytes_resident {resident_bytes(daemon, 'vgg16') / MIB:.0f} MiB")
        assert daemon.post("/v2/repository/models/vgg16/unload").status == 200
        print(f"big_upload: unloaded: Rss {rollup(pid)['Rss'] / MIB:.0f} MiB")
    print(f"big_upload ratio={size / peak:.3f}")


def resident_bytes(daemon, name):
    variant = daemon.get(f"/api/v1/models/{name}/variants/original").json()
    return variant["bytes_resident"]


def resident(build, files):
    with harness.Daemon(build) as daemon:
        daemon.wait_ready()
        pid = daemon.process.pid
        names = [f"net{i}" for i in range(len(files) + 1)]
        for name, path in zip(names, files[:1] + files):
            put_file(daemon, name, path)
        # what the first one brings for good (kernels' code, threads, buffers) is not a variant's
        for name in names: # an upload loads
            infer(daemon, name, [1, 3, 32, 32])
            assert daemon.post(f"/v2/repository/models/{name}/unload").status == 200
        before = rollup(pid)
        for name in names[1:]:
            assert daemon.post(f"/v2/repository/models/{name}/load").status == 200
            infer(daemon, name, [1, 3, 32, 32])
        each = sum(resident_bytes(daemon, name) for name in names[1:])
        counted = daemon.get("/api/v1/status").json()["memory"]["used_bytes"]
        loaded = rollup(pid)
        for name in names[1:]:
            assert daemon.post(f"/v2/repository/models/{name}/unload").status == 200
        after = rollup(pid)
        grown = loaded["Pss"] - before["Pss"]
        print(f"eight_resident: {len(files)} loaded: counted {counted / MIB:.2f} MiB (each for itself, with "
              f"arenas of its own: {each / MIB:.2f}), Pss grew {grown / MIB:.2f} MiB (Rss "
              f"{(loaded['Rss'] - before['Rss']) / MIB:.2f}, anonymous "
              f"{(loaded['Anonymous'] - before['Anonymous']) / MIB:.2f}); unloaded: Pss "
              f"{(after['Pss'] - before['Pss']) / MIB:+.2f} MiB against before; all of the daemon "
              f"{loaded['Pss'] / MIB:.1f} MiB")
        print(f"eight_resident ratio={counted / grown:.3f}")


if __name__ == "__main__":
    {"big": big, "resident": resident}[sys.argv[2]](sys.argv[1], sys.argv[3:])
