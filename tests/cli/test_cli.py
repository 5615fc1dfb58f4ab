#!/usr/bin/env python3
"""The program bonsai against a server that answers by a table and remembers what it was asked: python3 test_cli.py
PATH-OF-BONSAI. (tests/api has the real daemon; here are the words on the wire, the exit statuses, the texts.)"""

import http.server
import json
import os
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import unittest

BONSAI = None
JOB = "0193a3b4-0000-7000-8000-000000000001"
DONE = {"id": JOB, "state": "succeeded", "result": {"evaluation": {"accuracy": 0.9123, "n": 10000}}, "error": None}


def sse(number, kind, data):
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def read_body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self):
        body = self.read_body()
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        key = f"{self.command} {self.path.split('?')[0]}"
        status, reply = self.server.replies.get(key, (404, {"error": f"no {key}", "code": "not_found"}))
        if isinstance(reply, list):  # one answer after the other
            reply = reply.pop(0) if reply else ""
            status = 204 if reply == "" else status
        data = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if status != 204:
            self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = answer


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self):
        request, _ = super().get_request()
        return request, ("unix", 0)


class CliTest(unittest.TestCase):
    def setUp(self):
        self.start(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.tmp = tempfile.TemporaryDirectory()
        self.addCleanup(self.tmp.cleanup)

    def start(self, server):
        self.server = server
        self.server.replies, self.server.seen = {}, []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)

    def file(self, name, content):
        path = os.path.join(self.tmp.name, name)
        with open(path, "wb") as f:
            f.write(content if isinstance(content, bytes) else content.encode())
        return path

    def bonsai(self, *args, status=0, **env):
        done = subprocess.run([BONSAI, *args], capture_output=True, text=True, timeout=60,
                              env={**os.environ, "BONSAI_URL": self.url, **env}, check=False)
        self.assertEqual(done.returncode, status, done.stderr)
        self.out, self.err = done.stdout, done.stderr
        return done.stdout

    def test_models_are_a_table_and_json_is_the_servers_own(self):
        document = {"items": [{"name": "lenet", "n_variants": 2, "bytes": 524288, "parameters": 61706,
                               "macs": 429128, "created": "2026-11-24T10:00:00.123Z"}], "next_cursor": None}
        self.server.replies["GET /api/v1/models"] = (200, document)
        self.assertEqual(self.bonsai("models").splitlines()[1].split(),
                         ["lenet", "2", "512.00", "KiB", "61.71k", "429.13k", "2026-11-24T10:00:00"])
        self.assertEqual(json.loads(self.bonsai("--json", "models")), document)

    def test_a_refusal_is_one_sentence_and_status_1(self):
        self.bonsai("variants", "nobody", status=1)
        self.assertEqual(self.err, "bonsai: no GET /api/v1/models/nobody/variants\n")
        self.assertEqual(self.out, "")

    def test_an_answer_that_is_no_json_still_gives_a_sentence(self):
        self.server.replies["GET /api/v1/models"] = (502, "<html>bad</html>")
        self.bonsai("models", status=1)
        self.assertEqual(self.err, "bonsai: the server answered with status 502\n")

    def test_without_a_server_the_status_is_3(self):
        self.bonsai("models", status=3, BONSAI_URL="unix:/nowhere/at/all.sock")

    def test_a_wrong_command_line_is_status_2_and_nothing_is_sent(self):
        for args in (["frobnicate"], ["variants"], ["models", "x"], ["compress", "m", "--as", "v"],
                     ["compress", "m", "--steps", "[]"], ["compress", "m", "--steps"], ["jobs", "--frob"],
                     ["compress", "m", "--steps", "[{]", "--as", "v"], ["evaluate", "m"],
                     ["compress", "m", "--recipe", "r", "--as", "v", "--seed", "x"], ["upload", "m", "/nowhere/x"],
                     ["train", "m"], ["train", "m", "--network", "lenet5"], ["train", "m", "--dataset", "d"],
                     ["train", "m", "--network", "n", "--from", "f", "--dataset", "d"],
                     ["train", "m", "--network", "n", "--dataset", "d", "--minutes", "0"],
                     ["train", "m", "--network", "n", "--dataset", "d", "--options", "[1]"], []):
            self.bonsai(*args, status=2)
            self.assertNotEqual(self.err, "")
        self.bonsai("models", status=2, BONSAI_URL="ftp://x")
        self.assertEqual(self.server.seen, [])

    def test_help_needs_no_server(self):
        self.assertIn("exit status", self.bonsai("--help", BONSAI_URL="unix:/nowhere"))
        for command in ("models", "upload", "datasets", "compress", "jobs", "watch", "variants", "compare", "infer",
                        "evaluate", "train"):
            self.assertIn(f"usage: bonsai {command}", self.bonsai(command, "--help"))

    def test_upload_streams_the_file_then_describes_it(self):
        self.server.replies["PUT /api/v1/models/m%20x"] = (201, {"parameters": 7, "macs": 9})
        self.server.replies["PATCH /api/v1/models/m%20x"] = (200, {})
        content = bytes(range(256)) * 9000
        self.bonsai("upload", "m x", self.file("net.onnx", content), "--labels", self.file("l", "cat\ndog\n"),
                    "--preprocess", self.file("p", '{"layout":"NCHW"}'), BONSAI_TOKEN="secret")
        put, patch = self.server.seen
        self.assertEqual(put[3], content)
        self.assertEqual(put[2]["Authorization"], "Bearer secret")
        self.assertEqual(json.loads(patch[3]), {"labels": ["cat", "dog"], "preprocess": {"layout": "NCHW"}})
        self.assertIn("7 parameters", self.out)

    def test_a_card_is_taken_for_a_preprocess(self):
        self.server.replies["PUT /api/v1/models/m"] = (201, {"parameters": 7, "macs": 9})
        self.server.replies["PATCH /api/v1/models/m"] = (200, {})
        card = self.file("card", '{"name":"m","preprocess":{"layout":"NCHW"},"labels":["a"],"accuracy":0.9}')
        self.bonsai("upload", "m", self.file("net.onnx", b"net"), "--preprocess", card)
        self.assertEqual(json.loads(self.server.seen[1][3]), {"labels": ["a"], "preprocess": {"layout": "NCHW"}})

    def test_a_data_set_goes_to_its_split(self):
        self.server.replies["PUT /api/v1/datasets/d"] = (
            201, {"count": 3, "classes": ["a", "b"], "splits": {"train": {"count": 2}, "test": {"count": 1}}})
        out = self.bonsai("datasets", "put", "d", self.file("d.tar", b"tar"), "--split", "test")
        self.assertEqual(self.server.seen[0][1], "/api/v1/datasets/d?replace=false&split=test")
        self.assertEqual(out, "d: 3 items, 2 classes, train 2, test 1\n")

    def test_compress_sends_the_job_of_the_contract(self):
        self.server.replies["POST /api/v1/jobs"] = (202, {"id": JOB, "state": "queued"})
        out = self.bonsai("compress", "m", "--steps", '[{"method":"quantize"}]', "--dataset", "d", "--as", "s",
                          "--seed", "5")
        self.assertEqual(out, JOB + "\n")
        self.assertEqual(json.loads(self.server.seen[0][3]),
                         {"kind": "compress", "model": "m", "variant": "s", "dataset": "d", "seed": 5,
                          "steps": [{"method": "quantize"}]})

    def test_train_sends_the_job_of_the_contract(self):
        self.server.replies["POST /api/v1/jobs"] = (202, {"id": JOB, "state": "queued"})
        out = self.bonsai("train", "m", "--network", "lenet5", "--dataset", "d", "--options", '{"epochs": 3}',
                          "--minutes", "1.5", "--seed", "5")
        self.assertEqual(out, JOB + "\n")
        self.bonsai("train", "m", "--network", '{"zoo": "resnet20", "width": 2}', "--dataset", "d", "--dry-run")
        self.bonsai("train", "m", "--from", "n~v", "--dataset", "d")
        common = {"kind": "train", "model": "m", "dataset": "d"}
        self.assertEqual([json.loads(s[3]) for s in self.server.seen],
                         [{**common, "network": {"zoo": "lenet5"}, "epochs": 3, "minutes": 1.5, "seed": 5},
                          {**common, "network": {"zoo": "resnet20", "width": 2}}, {**common, "from": "n~v"}])
        self.assertEqual(self.server.seen[1][1], "/api/v1/jobs?dry_run=true")

    def test_evaluate_names_the_variants(self):
        self.server.replies["POST /api/v1/jobs"] = (202, {"id": JOB, "state": "queued"})
        self.bonsai("evaluate", "m", "--dataset", "d", "--variants", "original,s", "--split", "val")
        self.assertEqual(json.loads(self.server.seen[0][3]),
                         {"kind": "evaluate", "model": "m", "dataset": "d", "variants": ["original", "s"],
                          "split": "val"})

    def test_watch_tells_lines_and_takes_a_broken_stream_up_again(self):
        progress = {"step": 0, "of": 1, "fraction": 0.4, "message": "calibrating", "eta_seconds": 3}
        self.server.replies[f"GET /api/v1/jobs/{JOB}/events"] = (200, [
            sse(1, "state", {"job": JOB, "state": "running"}) + ": heartbeat\n\n" + sse(2, "progress", progress)
            + "id: 3\nevent: prog",
            sse(3, "metric", {"name": "loss", "value": 0.5}) + sse(4, "done", DONE)])
        out = self.bonsai("watch", JOB)
        self.assertEqual(out.splitlines(), ["running", " 40% calibrating", "loss 0.5",
                                            "accuracy 91.23% on 10000 items"])
        self.assertEqual(self.server.seen[1][2]["Last-Event-ID"], "2")

    def test_watch_of_a_job_that_was_done_before(self):
        self.server.replies[f"GET /api/v1/jobs/{JOB}/events"] = (200, [])
        self.server.replies[f"GET /api/v1/jobs/{JOB}"] = (200, DONE)
        self.bonsai("watch", JOB)

    def test_a_failed_job_is_status_4_with_its_reason(self):
        failed = {"id": JOB, "state": "failed", "error": {"code": "worker_crashed", "message": "signal 9"}}
        self.server.replies[f"GET /api/v1/jobs/{JOB}/events"] = (200, [sse(1, "done", failed)])
        self.bonsai("watch", JOB, status=4)
        self.assertEqual(self.err, f"bonsai: job {JOB}: failed: signal 9\n")

    def test_watched_events_are_json_lines(self):
        self.server.replies[f"GET /api/v1/jobs/{JOB}/events"] = (200, [sse(1, "done", DONE)])
        self.assertEqual(json.loads(self.bonsai("watch", JOB, "--json")), {"event": "done", "data": DONE})

    def test_compare_shows_the_servers_table(self):
        self.server.replies["GET /api/v1/models/m/comparison"] = (200, "variant  accuracy\noriginal  0.91\n")
        self.assertEqual(self.bonsai("compare", "m"), "variant  accuracy\noriginal  0.91\n")
        self.assertEqual(self.server.seen[0][2]["Accept"], "text/plain")

    def test_infer_of_a_picture_shows_its_classes(self):
        self.server.replies["POST /v2/models/m~s/infer"] = (
            200, {"model_name": "m", "outputs": [], "classes": [{"index": 3, "label": "cat", "score": 0.87}]})
        out = self.bonsai("infer", "m", self.file("x.jpg", b"\xff\xd8\xff"), "--variant", "s", "--top", "2")
        self.assertEqual(out.splitlines()[1].split(), ["cat", "3", "87.00%"])
        self.assertEqual(self.server.seen[0][1], "/v2/models/m~s/infer?top=2&outputs=false")

    def test_infer_of_an_array_is_binary(self):
        self.server.replies["GET /v2/models/m"] = (200, {"inputs": [{"name": "x", "shape": [-1, 2]}]})
        self.server.replies["POST /v2/models/m/infer"] = (
            200, {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2]}]})
        head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n"
        values = struct.pack("<2f", 1, 2)
        npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + values
        self.assertEqual(self.bonsai("infer", "m", self.file("x.npy", npy)), "y FP32 [1,2] [1.5,2]\n")
        _, _, headers, body = self.server.seen[1]
        size = int(headers["Inference-Header-Content-Length"])
        self.assertEqual(json.loads(body[:size]), {"inputs": [{
            "name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}]})
        self.assertEqual(body[size:], values)

    def test_bad_arrays_are_refused_here(self):
        for content in (b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x01\x00\x02\x00{}ab",
                        b"\x93NUMPY\x01\x00\x30\x00{'descr': '<c8', 'shape': (1,), " + b" " * 20):
            self.bonsai("infer", "m", self.file("x.npy", content), status=2)

    def test_a_unix_socket_is_reached(self):
        path = os.path.join(self.tmp.name, "s")
        self.start(UnixServer(path, Handler))
        self.server.replies["GET /api/v1/jobs"] = (200, {"items": []})
        self.bonsai("jobs", BONSAI_URL=f"unix:{path}")
        self.assertEqual(self.server.seen[0][2]["Host"], "localhost")


if __name__ == "__main__":
    BONSAI = sys.argv.pop(1)
    unittest.main()
