#!/usr/bin/env python3
"""What models cost in memory, with a daemon of its own: python3 memory.py BUILD big VGG16.onnx | resident FILE...

  big       upload of a large file: peak of daemon and worker (VmHWM), time to 201, time to the first answer
  resident  the files as models, all loaded: bytes_resident beside the growth of the daemon's Pss; what unload gives back
  forms     forms of one network, NAME=FILE each, policy memory: counted and measured bytes and the peak while loading,
            beside onnxruntime-node with the same file

`forms` ends with the smallest of the ratios that the project wants at least at 1. `big` ends with the ratio of the file's size to the daemon's peak while it took the file in, `resident` with counted
bytes over measured ones."""
import http.client
import json
import os
import subprocess
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


def ort_memory(path):
    """What onnxruntime-node grows by: resident, peak."""
    out = subprocess.run(["node", "--expose-gc", os.path.join(os.path.dirname(os.path.abspath(__file__)), "ort_load.mjs"),
                          path], check=True, capture_output=True, text=True, timeout=120).stdout.split()
    return int(out[1]) * 1024, int(out[2]) * 1024


def reset_peak(pid):
    with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as f:
        f.write("5")


def load_form(daemon, name, path, pid):
    """Growth of Pss, of the peak, and counted bytes; loaded anew with policy memory and asked once."""
    put_file(daemon, name, path)
    assert daemon.request("PATCH", f"/api/v1/models/{name}/variants/original", {"policy": "memory"}).status == 200
    assert daemon.post(f"/v2/repository/models/{name}/unload").status == 200
    before = rollup(pid)
    reset_peak(pid)
    assert daemon.post(f"/v2/repository/models/{name}/load").status == 200
    infer(daemon, name, [1, 3, 224, 224])
    peak = status(pid, "VmHWM") - before["Rss"]
    return rollup(pid)["Pss"] - before["Pss"], peak, resident_bytes(daemon, name)


def forms(build, pairs):
    named = [pair.split("=", 1) for pair in pairs]
    theirs = {name: ort_memory(path) for name, path in named}
    ratios = []
    with harness.Daemon(build, "--threads", "1", "--tune=false") as daemon:
        daemon.wait_ready()
        pid = daemon.process.pid
        for name, path in named: # what a form brings for good is not its variant's
            put_file(daemon, name, path)
            infer(daemon, name, [1, 3, 224, 224])
            assert daemon.post(f"/v2/repository/models/{name}/unload").status == 200
            assert daemon.request("DELETE", f"/api/v1/models/{name}").status in (200, 204)
        start = rollup(pid)
        sums = [0, 0] # of the forms that are stored small: ours, theirs
        for name, path in named:
            grown, peak, counted = load_form(daemon, name, path, pid)
            resident_ort, peak_ort = theirs[name]
            print(f"eight_forms: {name}: {os.path.getsize(path) / MIB:.1f} MiB of file, grew {grown / MIB:.1f} MiB, "
                  f"counted for itself {counted / MIB:.1f}, peak {peak / MIB:.1f}; onnxruntime {resident_ort / MIB:.1f}, "
                  f"peak {peak_ort / MIB:.1f}: {grown / resident_ort:.3f} and {peak / peak_ort:.3f} of it", flush=True)
            if name in ("float", "int8", "low_rank"):
                ratios.append(("resident " + name, 0.85 * resident_ort / grown))
            else:
                sums[0] += grown
                sums[1] += resident_ort
            ratios.append(("peak " + name, 0.5 * peak_ort / peak))
        counted = daemon.get("/api/v1/status").json()["memory"]["used_bytes"]
        grown = rollup(pid)["Pss"] - start["Pss"]
        print(f"eight_forms: together: counted {counted / MIB:.1f} MiB, Pss grew {grown / MIB:.1f} MiB: "
              f"{counted / grown:.3f}; stored small {sums[0] / MIB:.1f} MiB, onnxruntime {sums[1] / MIB:.1f}: "
              f"{sums[0] / max(1, sums[1]):.3f} of it")
        ratios.append(("counted", 1.05 / max(counted / grown, grown / counted)))
        if sums[1]:
            ratios.append(("stored small", sums[1] / 5 / sums[0]))
    worst = min(ratios, key=lambda r: r[1])
    print("eight_forms: against what is wanted: " + ", ".join(f"{what} {r:.2f}" for what, r in ratios))
    print(f"eight_forms: lowest: {worst[0]}\neight_forms ratio={worst[1]:.3f}")


if __name__ == "__main__":
    {"big": big, "resident": resident, "forms": forms}[sys.argv[2]](sys.argv[1], sys.argv[3:])
