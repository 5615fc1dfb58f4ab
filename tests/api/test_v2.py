"""The inference protocol as its clients use it (the behaviours that tritonclient, the C++ client, perf_analyzer and
KServe depend on), and the conventions of every reply, against a real daemon.

    python3 tests/api/test_v2.py BUILD
"""

import gzip
import http.client
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", ".."))
from tests.api.harness import Daemon  # noqa: E402

MODELS = os.path.join(os.path.dirname(__file__), "..", "data", "models")
BUILD = None
d = None  # the daemon of the module


def model_file(name):
    with open(os.path.join(MODELS, name), "rb") as f:
        return f.read()


def setUpModule():
    global d
    d = Daemon(BUILD, "--serve-only").start()
    d.wait_ready()
    for name, file in (("mnist", "mnist-8.onnx"), ("gemm", "gemm_arithmetic.onnx")):
        reply = d.put(f"/api/v1/models/{name}", model_file(file))
        assert reply.status == 201, reply


def tearDownModule():
    d.__exit__(None, None, None)


def gemm_json(rows=1, **more):
    x = {"name": "x", "shape": [rows, 5], "datatype": "FP32", "data": [i / 8 for i in range(5 * rows)]}
    return {"inputs": [x], **more}


def binary(head, *blobs):
    text = json.dumps(head).encode()
    return text + b"".join(blobs), {"Inference-Header-Content-Length": str(len(text))}


def infer(body, headers=None, model="gemm", query=""):
    if isinstance(body, dict):
        body = json.dumps(body)
    return d.post(f"/v2/models/{model}/infer{query}", body, headers=headers or {})


def raw(data, timeout=5):
    """Everything the server says to these bytes until it closes or falls silent."""
    with socket.create_connection(("127.0.0.1", d.port), timeout=timeout) as s:
        s.sendall(data)
        got = b""
        try:
            while True:
                more = s.recv(65536)
                if not more:
                    return got, True
                got += more
        except TimeoutError:
            return got, False


class FullRate(unittest.TestCase):
    """A network that is done before the loop has looked: answering, freeing and waking meet."""

    def test_a_small_network_survives_it(self):
        with tempfile.NamedTemporaryFile("w") as body:
            json.dump(gemm_json(), body)
            body.flush()
            for connections in (1, 8, 32):
                load = subprocess.run(
                    [os.path.join(BUILD, "tests", "bench", "http_load"), str(d.port), "/v2/models/gemm/infer",
                     "application/json", body.name, str(connections)],
                    input="12000\n", capture_output=True, text=True, timeout=60)
                self.assertEqual((load.returncode, load.stdout.split()[0]), (0, "ready"), load.stderr)
                self.assertGreater(float(load.stdout.split()[1]), 0)
        self.assertEqual(infer(gemm_json()).status, 200)


class Metadata(unittest.TestCase):
    def test_server_extensions_are_strings(self):
        doc = d.get("/v2").json()
        self.assertIn("statistics", doc["extensions"])
        self.assertIn("binary_tensor_data", doc["extensions"])
        self.assertTrue(all(isinstance(e, str) for e in doc["extensions"]))

    def test_health_bodies_are_what_kserve_parses(self):
        self.assertIs(d.get("/v2/health/live").json()["live"], True)
        self.assertIs(d.get("/v2/health/ready").json()["ready"], True)
        self.assertEqual(d.get("/v2/models/gemm/ready").json(), {"name": "gemm", "ready": True})
        for path in ("/healthz", "/readyz"):
            self.assertEqual(d.get(path).status, 200)

    def test_versions_are_strings_and_batch_dimension_is_shown(self):
        doc = d.get("/v2/models/gemm").json()
        self.assertEqual(doc["versions"], ["1"])
        self.assertEqual(doc["platform"], "onnx_onnxv1")
        self.assertEqual(doc["inputs"], [{"name": "x", "datatype": "FP32", "shape": [-1, 5]}])
        self.assertEqual(d.get("/v2/models/gemm/versions/1").json()["inputs"], doc["inputs"])
        self.assertEqual(set(d.get("/v2/models").json()["models"]), {"gemm", "mnist"})

    def test_config_dims_are_without_the_batch(self):
        config = d.get("/v2/models/gemm/config").json()
        self.assertGreater(config["max_batch_size"], 0)
        self.assertIn("dynamic_batching", config)
        self.assertEqual(config["input"][0]["dims"], [5])
        self.assertEqual(config["input"][0]["data_type"], "TYPE_FP32")
        self.assertIs(config["input"][0]["optional"], False)
        self.assertIs(config["model_transaction_policy"]["decoupled"], False)
        self.assertIs(config["response_cache"]["enable"], False)

    def test_a_fixed_first_dimension_is_never_batched(self):
        config = d.get("/v2/models/mnist/config").json()
        self.assertEqual(config["max_batch_size"], 0)
        self.assertNotIn("dynamic_batching", config)
        self.assertEqual(config["input"][0]["dims"], [1, 1, 28, 28])

    def test_a_variant_has_three_names(self):
        for name in ("gemm~original", "gemm~1", "gemm%7Eoriginal"):
            self.assertEqual(d.get(f"/v2/models/{name}").status, 200, name)
        self.assertEqual(d.get("/v2/models/gemm~original/versions/1").status, 200)
        for path in ("gemm~original/versions/2", "gemm/versions/2", "gemm~nope", "nope", "gemm/versions/x"):
            self.assertEqual(d.get(f"/v2/models/{path}").status, 404, path)

    def test_statistics_have_every_key_that_perf_analyzer_reads(self):
        infer(gemm_json())
        for path in ("gemm/stats", "gemm/versions/1/stats", "stats"):
            rows = d.get(f"/v2/models/{path}").json()["model_stats"]
            s = [r for r in rows if r["name"] == "gemm"][0]
            self.assertEqual(s["version"], "1")
            self.assertGreaterEqual(s["inference_count"], s["execution_count"])
            self.assertGreater(s["execution_count"], 0)
            stats = s["inference_stats"]
            for key in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit",
                        "cache_miss"):
                self.assertEqual(set(stats[key]), {"count", "ns"})
            self.assertEqual(stats["compute_input"]["count"], stats["compute_infer"]["count"])
            self.assertEqual(stats["compute_infer"]["count"], stats["compute_output"]["count"])
            self.assertGreater(s["memory_usage"][0]["byte_size"], 0)

    def test_index_load_unload(self):
        for body in (b"", b"{}"):
            rows = d.post("/v2/repository/index", body).json()
            self.assertEqual({(r["name"], r["version"], r["state"]) for r in rows},
                             {("gemm", "1", "READY"), ("mnist", "1", "READY")})
        self.assertEqual(d.post("/v2/repository/models/mnist/unload", {"parameters": {"unload_dependents": False}}).status, 200)
        self.assertEqual(d.get("/v2/models/mnist/ready").status, 503)
        reply = infer({"inputs": []}, model="mnist")
        self.assertEqual((reply.status, reply.json()["code"]), (503, "not_loaded"))
        self.assertEqual([r["name"] for r in d.post("/v2/repository/index", {"ready": True}).json()], ["gemm"])
        self.assertEqual(d.get("/v2/health/ready").status, 200)
        self.assertEqual(d.post("/v2/repository/models/mnist/load").status, 200)
        self.assertEqual(d.get("/v2/models/mnist/ready").status, 200)
        for bad in ({"parameters": {"config": "{}"}}, {"parameters": {"file:1/m.onnx": "AA=="}}):
            self.assertEqual(d.post("/v2/repository/models/mnist/load", bad).status, 400)
        self.assertEqual(d.post("/v2/repository/models/nope/load").status, 404)


class Infer(unittest.TestCase):
    def test_json(self):
        reply = infer(gemm_json(id="abc"))
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.headers["Content-Type"], "application/json")
        self.assertEqual(reply.headers["Request-Id"], "abc")
        self.assertEqual(reply.headers["Bonsai-Variant"], "original")
        self.assertRegex(reply.headers["Server-Timing"], r"^queue;dur=[\d.]+, decode;dur=[\d.]+, infer;dur=[\d.]+, encode;dur=[\d.]+$")
        self.assertEqual(int(reply.headers["Content-Length"]), len(reply.body))
        doc = reply.json()
        self.assertEqual(list(doc), ["id", "model_name", "model_version", "outputs"])
        self.assertEqual(doc["model_version"], "1")
        self.assertEqual(doc["outputs"][0]["shape"], [1, 4])
        self.assertNotIn("parameters", doc["outputs"][0])

    def test_nested_and_flat_data_are_the_same(self):
        flat = gemm_json(2)
        nested = json.loads(json.dumps(flat))
        nested["inputs"][0]["data"] = [flat["inputs"][0]["data"][:5], flat["inputs"][0]["data"][5:]]
        self.assertEqual(infer(flat).json(), infer(nested).json())

    def test_python_client_binary_without_content_type(self):
        x = struct.pack("<5f", *[i / 8 for i in range(5)])
        body, headers = binary({"inputs": [{"name": "x", "shape": [1, 5], "datatype": "FP32",
                                            "parameters": {"binary_data_size": 20}}],
                                "parameters": {"binary_data_output": True}}, x)
        reply = infer(body, headers)
        self.assertEqual(reply.status, 200)
        n = int(reply.headers["inference-header-content-length"])
        head = json.loads(reply.body[:n])
        self.assertEqual(head["outputs"][0]["parameters"], {"binary_data_size": 16})
        values = struct.unpack("<4f", reply.body[n:])
        for a, b in zip(values, infer(gemm_json()).json()["outputs"][0]["data"]):
            self.assertAlmostEqual(a, b, places=6)
        # lower case, as KServe writes it
        self.assertEqual(infer(body, {"inference-header-content-length": headers["Inference-Header-Content-Length"]}).status, 200)

    def test_cpp_client_sends_the_header_with_pure_json(self):
        body = json.dumps(gemm_json()).encode()
        self.assertEqual(infer(body, {"Inference-Header-Content-Length": str(len(body))}).status, 200)
        for bad in (str(len(body) + 1), "-1", "x", ""):
            self.assertEqual(infer(body, {"Inference-Header-Content-Length": bad}).status, 400, bad)

    def test_raw(self):
        reply = infer(struct.pack("<5f", 1, 2, 3, 4, 5), {"Inference-Header-Content-Length": "0"})
        self.assertEqual(reply.status, 200)
        n = int(reply.headers["Inference-Header-Content-Length"])
        self.assertEqual(len(reply.body) - n, 16)
        self.assertEqual(infer(b"1234", {"Inference-Header-Content-Length": "0"}).status, 400)

    def test_binary_data_by_output(self):
        body = gemm_json(outputs=[{"name": "y", "parameters": {"binary_data": True}}])
        reply = infer(body)
        n = int(reply.headers["Inference-Header-Content-Length"])
        self.assertEqual(len(reply.body) - n, 16)

    def test_halves_in_and_out(self):
        self.assertEqual(d.put("/api/v1/models/half", model_file("half_gemm.onnx")).status, 201)
        self.addCleanup(d.delete, "/api/v1/models/half")
        x = [0.5, -1, 2, 0.25, 1.5]
        want = [max(0, 0.5 * (sum(x[i] * ((4 * i + k) / 16 - 0.5) for i in range(5)) + (1, -1, 0.25, 2)[k]) + 0.125)
                for k in range(4)]
        head = {"inputs": [{"name": "x", "shape": [1, 5], "datatype": "FP16", "parameters": {"binary_data_size": 10}}],
                "parameters": {"binary_data_output": True}}
        body, headers = binary(head, struct.pack("<5e", *x))
        reply = infer(body, headers, "half")
        n = int(reply.headers["Inference-Header-Content-Length"])
        doc = json.loads(reply.body[:n])
        self.assertEqual((doc["outputs"][0]["datatype"], doc["outputs"][0]["shape"]), ("FP16", [1, 4]))
        self.assertEqual(reply.body[n:], struct.pack("<4e", *want))
        head["parameters"] = {}
        body, headers = binary(head, struct.pack("<5e", *x))
        self.assertEqual(infer(body, headers, "half").status, 400)

    def test_outputs_are_as_large_as_the_data_say(self):
        self.assertEqual(d.put("/api/v1/models/detect", model_file("detect.onnx")).status, 201)
        self.addCleanup(d.delete, "/api/v1/models/detect")
        self.assertEqual(d.get("/v2/models/detect").json()["outputs"][0]["shape"], [-1, 4])
        boxes = [0, 0, 1, 1, 0, 0.1, 1, 1.1, 0, 5, 1, 6, 0, 9, 1, 10]
        for scores, chosen, n, times in (([0.9, 0.8, 0, 0.3, 0, 0, 0.8, 0], (0, 3, 2), 4, [1, 2, 1]),
                                         ([0] * 8, (), 0, [])):
            body = {"inputs": [{"name": "boxes", "shape": [1, 4, 4], "datatype": "FP32", "data": boxes},
                               {"name": "scores", "shape": [1, 2, 4], "datatype": "FP32", "data": scores}]}
            outputs = {o["name"]: o for o in infer(body, model="detect").json()["outputs"]}
            self.assertEqual(outputs["chosen"]["shape"], [len(chosen), 4])
            self.assertEqual([round(v, 5) for v in outputs["chosen"]["data"]], [v for k in chosen for v in boxes[4 * k:4 * k + 4]])
            self.assertEqual((outputs["places"]["shape"], outputs["times"]["data"]), ([3, n], times))

    def test_classification(self):
        doc = infer(gemm_json(2, outputs=[{"name": "y", "parameters": {"classification": 2}}])).json()
        y = doc["outputs"][0]
        self.assertEqual((y["datatype"], y["shape"], len(y["data"])), ("BYTES", [2, 2], 4))
        values = infer(gemm_json(2)).json()["outputs"][0]["data"]
        best = max(range(4), key=lambda i: values[i])
        self.assertEqual(int(y["data"][0].split(":")[1]), best)

    def test_batches_answer_as_single_requests(self):
        whole = infer(gemm_json(7)).json()["outputs"][0]
        self.assertEqual(whole["shape"], [7, 4])
        for row in range(7):
            one = gemm_json()
            one["inputs"][0]["data"] = gemm_json(7)["inputs"][0]["data"][5 * row:5 * row + 5]
            for a, b in zip(infer(one).json()["outputs"][0]["data"], whole["data"][4 * row:4 * row + 4]):
                self.assertLessEqual(abs(a - b), 1e-5 * max(1, abs(a)))

    def test_gzip_and_deflate_both_ways(self):
        plain = json.dumps(gemm_json(50)).encode()
        for name, pack, unpack in (("gzip", gzip.compress, gzip.decompress), ("deflate", zlib.compress, zlib.decompress)):
            reply = infer(pack(plain), {"Content-Encoding": name, "Accept-Encoding": name})
            self.assertEqual(reply.status, 200)
            self.assertEqual(reply.headers["Content-Encoding"], name)
            self.assertEqual(json.loads(unpack(reply.body))["outputs"][0]["shape"], [50, 4])
        x = struct.pack("<5f", 1, 2, 3, 4, 5)
        body, headers = binary({"inputs": [{"name": "x", "shape": [1, 5], "datatype": "FP32",
                                            "parameters": {"binary_data_size": 20}}]}, x)
        self.assertEqual(infer(gzip.compress(body), {**headers, "Content-Encoding": "gzip"}).status, 200)
        self.assertEqual(infer(b"x", {"Content-Encoding": "br"}).status, 415)
        self.assertEqual(infer(b"not gzip", {"Content-Encoding": "gzip"}).status, 400)
        bomb = gzip.compress(b"0" * (65 << 20), 9)
        self.assertEqual(infer(bomb, {"Content-Encoding": "gzip"}).status, 413)

    def test_priority_and_timeout(self):
        self.assertEqual(infer(gemm_json(parameters={"priority": 1, "timeout": 5000000})).status, 200)
        reply = infer(gemm_json(parameters={"timeout": 1}))
        self.assertEqual((reply.status, reply.json()["code"]), (504, "deadline"))

    def test_unknown_parameters_are_passed_over(self):
        self.assertEqual(infer(gemm_json(parameters={"sequence_id": 5, "custom": "x"})).status, 200)

    def test_bad_requests(self):
        def x(**change):
            body = gemm_json()
            body["inputs"][0].update(change)
            return body

        nan = json.dumps(gemm_json()).replace("0.125", "NaN")
        cases = [
            (b"", 400, "bad_json"), (b"{", 400, "bad_json"), (b"[]", 400, "bad_json"), (b"\xff", 400, "bad_json"),
            ({}, 400, "bad_request"), ({"inputs": []}, 400, "bad_request"),
            (x(data=[1, 2]), 400, "bad_request"), (x(data=[1] * 6), 400, "bad_request"),
            (x(datatype="INT32"), 400, "bad_request"), (x(datatype="FP16"), 400, "bad_request"),
            (x(name="z"), 400, "bad_request"), (x(shape=[1, 4], data=[1] * 4), 422, "shape_mismatch"),
            (x(shape=[-1, 5]), 400, "bad_request"), (x(shape=[0, 5], data=[]), 400, "bad_request"),
            (x(shape=[1 << 60, 5]), 400, "bad_request"), (x(shape=[1 << 62, 1 << 62]), 400, "bad_request"),
            (x(data=["a"] * 5), 400, "bad_request"), (x(data=[True] * 5), 400, "bad_request"),
            (x(data=[1e39] * 5), 400, "bad_request"), (nan, 400, "bad_request"),
            (nan.replace("NaN", "Infinity"), 400, "bad_request"),
            ({"inputs": gemm_json()["inputs"] * 2}, 400, "bad_request"),
            (gemm_json(outputs=[{"name": "q"}]), 400, "bad_request"),
            (gemm_json(1000), 400, "bad_request"),
            ('{"a":' * 10000, 400, "bad_json"), ("[" * 65, 400, "bad_json"),
        ]
        for body, status, code in cases:
            reply = infer(body)
            self.assertEqual((reply.status, reply.json()["code"]), (status, code), repr(body)[:200])
            self.assertIsInstance(reply.json()["error"], str)
        self.assertIn("data has 2 values, the shape wants 5", infer(x(data=[1, 2])).json()["error"])

    def test_a_picture(self):
        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        png = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0)) +
               chunk(b"IDAT", zlib.compress((b"\0" + bytes(range(28))) * 28)) + chunk(b"IEND", b""))
        for headers in ({}, {"Content-Type": "application/x-www-form-urlencoded"}):
            doc = infer(png, headers, "mnist", "?top=3").json()
            self.assertEqual([len(doc["classes"]), doc["outputs"][0]["shape"]], [3, [1, 10]])
            scores = [c["score"] for c in doc["classes"]]
            self.assertEqual(scores, sorted(scores, reverse=True))
            self.assertIsNone(doc["classes"][0]["label"])
        self.assertEqual(infer(png, {}, "mnist", "?outputs=false").json()["outputs"], [])
        self.assertEqual(infer(png, {}, "gemm").status, 422)
        self.assertEqual(infer(png[:60], {}, "mnist").status, 400)
        bomb = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)) +
                chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
        self.assertEqual(infer(bomb, {}, "mnist").status, 413)
        self.assertEqual(infer(png, {}, "mnist", "?top=0").status, 400)

    def test_a_batch_of_pixels_is_bounded_before_it_grows(self):
        """One byte of the body may become a picture of floats: the model's limit holds before that."""
        n = 60000
        body, headers = binary({"inputs": [{"name": "Input3", "shape": [n, 1, 1, 1], "datatype": "UINT8",
                                            "parameters": {"binary_data_size": n}}]}, bytes(n))
        before = d.peak_kib()
        reply = infer(body, headers, "mnist")
        self.assertEqual((reply.status, reply.json()["code"]), (422, "shape_mismatch"))
        self.assertLess(d.peak_kib() - before, 64 << 10)

    def test_compare(self):
        doc = d.post("/api/v1/models/gemm/compare?variants=original", gemm_json(2)).json()
        row = doc["variants"][0]
        self.assertEqual((doc["reference"], row["variant"], row["number"]), ("original", "original", 1))
        self.assertEqual((row["top1_agrees"], row["max_abs_diff"], row["cosine"], row["error"]), (True, 0, 1, None))
        self.assertEqual(row["outputs"][0]["data"], infer(gemm_json(2)).json()["outputs"][0]["data"])
        self.assertEqual(d.post("/api/v1/models/gemm/compare?variants=a,b", gemm_json()).status, 404)
        self.assertEqual(d.post("/api/v1/models/nope/compare", gemm_json()).status, 404)
        self.assertEqual(d.post("/api/v1/models/gemm/compare", {"inputs": []}).status, 400)


class Conventions(unittest.TestCase):
    def test_every_failure_has_a_json_body_and_an_exact_type(self):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            for path in ("/nothing", "/v2/models/nope", "/v2/models/nope/infer", "/v2/health/live", "/api/v1/models/nope"):
                reply = d.request(method, path, body=b"")
                if reply.status < 400:
                    continue
                doc = reply.json()
                self.assertEqual(reply.headers["Content-Type"], "application/json")
                self.assertEqual(set(doc) - {"details"}, {"error", "code", "request_id"})
                self.assertEqual(reply.headers["Request-Id"], doc["request_id"])
                if reply.status == 405:
                    self.assertTrue(reply.headers["Allow"])

    def test_request_id_is_echoed_only_if_it_is_a_name(self):
        self.assertEqual(d.get("/v2", headers={"Request-Id": "my.id-1"}).headers["Request-Id"], "my.id-1")
        self.assertNotEqual(d.get("/v2", headers={"Request-Id": "no/name"}).headers["Request-Id"], "no/name")

    def test_head_is_get_without_a_body(self):
        reply = d.request("HEAD", "/v2")
        self.assertEqual((reply.status, reply.body), (200, b""))
        self.assertEqual(reply.headers["Content-Length"], d.get("/v2").headers["Content-Length"])

    def test_hostile_paths(self):
        for path in ("/v2/models/a%00b", "/v2/models/a%2fb", "/v2/%2e%2e/x", "/v2/../x", "/v2/models/a%0Ab", "/v2/models/%"):
            got, _ = raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            self.assertTrue(got.startswith(b"HTTP/1.1 400"), (path, got[:60]))

    def test_double_length_and_smuggling_close(self):
        follow = b"GET /v2/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for lines in (b"Content-Length: 2\r\nContent-Length: 3\r\n", b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
                      b"Transfer-Encoding: gzip, chunked\r\n"):
            got, is_closed = raw(b"POST /v2/models/gemm/infer HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n{}" + follow)
            self.assertTrue(got.startswith(b"HTTP/1.1 400"), got[:60])
            self.assertEqual(got.count(b"HTTP/1.1 "), 1)
            self.assertTrue(is_closed)

    def test_connection_lives_on_after_a_refused_body(self):
        c = http.client.HTTPConnection("127.0.0.1", d.port, timeout=10)
        for _ in range(3):
            c.request("POST", "/v2/models/nope/infer", body=b"x" * 100000)
            reply = c.getresponse()
            self.assertEqual((reply.status, json.loads(reply.read())["code"]), (404, "not_found"))
        c.request("GET", "/v2")
        self.assertEqual(c.getresponse().status, 200)
        c.close()

    def test_expect_is_answered_before_the_body(self):
        head = b"POST /v2/models/nope/infer HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 9000000\r\n\r\n"
        got, is_closed = raw(head)
        self.assertTrue(got.startswith(b"HTTP/1.1 404"), got[:60])
        self.assertTrue(is_closed)
        got, _ = raw(head.replace(b"nope", b"gemm").replace(b"9000000", b"99000000"))
        self.assertTrue(got.startswith(b"HTTP/1.1 413"), got[:60])

    def test_foreign_pages_are_refused(self):
        for headers, code in (({"Host": "evil.example"}, "host_not_allowed"), ({"Origin": "http://evil.example"}, "origin_not_allowed"),
                              ({"Origin": "null"}, "origin_not_allowed"), ({"Sec-Fetch-Site": "cross-site"}, "origin_not_allowed")):
            reply = d.get("/v2", headers=headers)
            self.assertEqual((reply.status, reply.json()["code"]), (403, code))

    def test_multipart_is_415(self):
        self.assertEqual(infer(b"x", {"Content-Type": "multipart/form-data; boundary=x"}).status, 415)

    def test_admin_needs_more_than_loopback(self):
        self.assertEqual(d.get("/api/v1/config").status, 403)
        self.assertEqual(d.post("/api/v1/drain").status, 403)

    def test_unknown_query_parameters_are_refused_in_our_own_space(self):
        self.assertEqual(d.get("/api/v1/models?lim=5").json()["code"], "unknown_field")
        self.assertEqual(d.get("/v2/models?lim=5").status, 200)

    def test_openapi_lists_what_the_router_knows(self):
        reply = d.get("/openapi.json")
        paths = reply.json()["paths"]
        self.assertIn("post", paths["/v2/models/{model}/infer"])
        self.assertEqual(d.get("/openapi.json", headers={"If-None-Match": reply.headers["ETag"]}).status, 304)
        for path, verbs in paths.items():
            for verb in ("get", "put", "post", "patch", "delete"):
                reply = d.request("OPTIONS", path.replace("{", "").replace("}", ""))
                self.assertEqual(reply.status, 405, path)
                self.assertEqual(verb in verbs, verb.upper() in reply.headers["Allow"].split(", "), (path, verb))

    def test_files_of_variants_come_once(self):
        path = "/api/v1/models/gemm/variants/original/onnx"
        tags = set()
        for query in ("", "?form=dense", "?container=zst"):
            reply = d.get(path + query)
            tags.add(reply.headers["ETag"])
            again = d.get(path + query, headers={"If-None-Match": reply.headers["ETag"]})
            self.assertEqual((reply.status, again.status, again.body), (200, 304, b""), query)
        self.assertEqual(len(tags), 3)

    def test_the_page_comes_once(self):
        for path in ("/", "/style.css", "/app.js"):
            reply = d.get(path)
            self.assertEqual(reply.status, 200)
            again = d.get(path, headers={"If-None-Match": reply.headers["ETag"]})
            self.assertEqual((again.status, again.body, again.headers["ETag"]), (304, b"", reply.headers["ETag"]), path)

    def test_metrics(self):
        infer(gemm_json())
        reply = d.get("/metrics")
        self.assertTrue(reply.headers["Content-Type"].startswith("text/plain; version=0.0.4"))
        text = reply.body.decode()
        self.assertIn('bonsai_requests_total{model="gemm",variant="original",code="200"}', text)
        self.assertIn('bonsai_request_duration_seconds_bucket{model="gemm",variant="original",stage="infer",le="5e-05"}', text)
        reply = d.get("/metrics", headers={"Accept": "application/openmetrics-text"})
        self.assertTrue(reply.body.endswith(b"# EOF\n"))

    def test_status(self):
        doc = d.get("/api/v1/status").json()
        self.assertEqual(doc["degraded"], [])
        self.assertGreater(doc["memory"]["used_bytes"], 0)
        self.assertEqual(doc["limits"]["json_depth"], 64)

    def test_a_thousand_idle_connections_harm_nobody(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        idle = [socket.create_connection(("127.0.0.1", d.port)) for _ in range(1000)]
        begin = time.monotonic()
        self.assertEqual(infer(gemm_json()).status, 200)
        self.assertLess(time.monotonic() - begin, 2)
        # past the limit of 1,024: the longest idle ones make room
        idle += [socket.create_connection(("127.0.0.1", d.port)) for _ in range(200)]
        self.assertEqual(infer(gemm_json()).status, 200)
        for s in idle:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Limits(unittest.TestCase):
    def test_a_model_without_limits_of_its_own_has_the_options(self):
        options = {"max_batch": 3, "queue": 7, "timeout_ms": 5000}
        with Daemon(BUILD, "--serve-only", *(f"--{k}={v}" for k, v in options.items())) as own:
            reply = own.put("/api/v1/models/gemm", model_file("gemm_arithmetic.onnx"))
            self.assertEqual(reply.json()["limits"], options)
            self.assertEqual(own.get("/v2/models/gemm/config").json()["max_batch_size"], 3)
            self.assertEqual(own.post("/v2/models/gemm/infer", json.dumps(gemm_json(rows=4))).status, 400)
            for patch, max_batch in ((5, 5), (None, 3)):
                body = json.dumps({"limits": {"max_batch": patch}})
                reply = own.request("PATCH", "/api/v1/models/gemm", body)
                self.assertEqual(reply.json()["limits"], {**options, "max_batch": max_batch})


if __name__ == "__main__":
    BUILD = sys.argv.pop(1)
    unittest.main(verbosity=1)
