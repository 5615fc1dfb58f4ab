"""Bad input against a real daemon: each gets its status, its code and a sentence that names the place, leaves nothing
behind and changes nothing.

    python3 tests/api/test_bad_input.py BUILD
"""

import http.client
import io
import os
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
import zipfile
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", ".."))
from tests.api.harness import Daemon, Reply  # noqa: E402

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
BUILD = None
d = None  # the daemon of most tests


def read(*path):
    with open(os.path.join(ROOT, *path), "rb") as f:
        return f.read()


def setUpModule():
    global d, LENET, GEMM, FASHION
    LENET = read("clients", "demo", "lenet5_fashion.onnx")
    GEMM = read("tests", "data", "models", "gemm_arithmetic.onnx")
    FASHION = read("tests", "data", "datasets", "fashion-tiny.tar")
    d = Daemon(BUILD, env={"BONSAID_MAX_DATASET_BYTES": "64M", "BONSAID_MAX_MODEL_BYTES": "2M",
                           "BONSAID_BODY_GRACE_MS": "1000", "BONSAID_MAX_DATASET_MEMBERS": "2000"}).start()
    d.wait_ready()
    assert d.put("/api/v1/models/lenet", LENET).status == 201
    assert d.put("/api/v1/datasets/fashion", FASHION).status == 201


def tearDownModule():
    d.__exit__(None, None, None)


# Just enough protobuf to write wrong models.
def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def value_info(name, dims):
    shape = b"".join(field(1, field(1 if isinstance(n, int) else 2, n)) for n in dims)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


def node(op, inputs, outputs, name, domain=None):
    return (b"".join(field(1, i) for i in inputs) + b"".join(field(2, o) for o in outputs) + field(3, name) +
            field(4, op) + (field(7, domain) if domain else b""))


def model(nodes, inputs=(("x", [1, 4]),), outputs=(("y", [1, 4]),), initializers=(), domains=("",)):
    graph = (b"".join(field(1, n) for n in nodes) + field(2, "g") + b"".join(field(5, t) for t in initializers) +
             b"".join(field(11, value_info(*i)) for i in inputs) + b"".join(field(12, value_info(*o)) for o in outputs))
    return field(1, 8) + field(7, graph) + b"".join(field(8, field(1, m) + field(2, 13)) for m in domains)


F32, S8, S32, S64 = 1, 3, 6, 7


def tensor(name, dims, raw, external=False, dtype=F32):
    out = b"".join(field(1, n) for n in dims) + field(2, dtype) + field(8, name)
    if external:
        return out + field(13, field(1, "location") + field(2, "../secret.bin")) + field(14, 1)
    return out + field(9, raw)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, rows=None):
    rows = rows if rows is not None else (b"\0" + b"\x80" * width) * height
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def tar(*members, mode="w"):
    """Members: (name, bytes) or a TarInfo."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as t:
        for m in members:
            info = m if isinstance(m, tarfile.TarInfo) else tarfile.TarInfo(m[0])
            data = b"" if isinstance(m, tarfile.TarInfo) else m[1]
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
    return out.getvalue()


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


PICTURES = [(f"train/{c}/{i}.png", png(28, 28, b"".join(b"\0" + bytes([i * 40 + k]) * 28 for _ in range(28))))
            for k, c in enumerate(("a", "b")) for i in range(3)]


def expect(method, path, length):
    """The reply to the headers alone, as a client sees it that waits for 100 Continue."""
    with socket.create_connection(("127.0.0.1", d.port), timeout=20) as s:
        s.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
                  "Expect: 100-continue\r\n\r\n".encode())
        reply = http.client.HTTPResponse(s, method=method)
        reply.begin()
        return Reply(reply.status, reply.headers, reply.read())


class Refusals(unittest.TestCase):
    def setUp(self):
        self.before = self.known()

    def tearDown(self):
        self.addCleanup(self.remove_what_should_not_be)
        self.assertEqual(self.known(), self.before, "something was changed")
        Daemon.wait(lambda: not os.listdir(os.path.join(d.state, "tmp")), 10, "nothing is left in tmp/")
        self.assertEqual(d.get("/v2/health/live").status, 200)

    @staticmethod
    def remove_what_should_not_be():
        for path in ("models/bad", "datasets/bad"):
            d.delete(f"/api/v1/{path}")
        for job in d.get("/api/v1/jobs").json()["items"]:
            d.post(f"/api/v1/jobs/{job['id']}/cancel")
            d.wait_job(job["id"], 20)
            d.delete(f"/api/v1/jobs/{job['id']}")
        d.delete("/api/v1/models/lenet/variants/small")

    @staticmethod
    def known():
        lists = [d.get(f"/api/v1/{p}?limit=1000").json()["items"] for p in ("models", "datasets", "jobs")]
        return ([m["name"] for m in lists[0]], [s["name"] for s in lists[1]], [j["id"] for j in lists[2]],
                sorted(os.listdir(os.path.join(d.state, "blobs"))))

    def refused(self, reply, status, code, *words):
        self.assertEqual(reply.status, status, reply)
        doc = reply.json()
        self.assertEqual(doc["code"], code, doc)
        self.assertTrue(doc["request_id"], doc)
        for w in words:
            self.assertIn(w.lower(), doc["error"].lower(), doc)
        self.assertNotIn(d.state, reply.body.decode(), "a path of the file system")
        self.assertNotIn("/proc/", reply.body.decode())


class Models(Refusals):
    def upload(self, data, status, code, *words):
        self.refused(d.put("/api/v1/models/bad", data), status, code, *words)

    def test_not_protobuf(self):
        for data in (b"", b"hello, world", b"\xff" * 100, png(3, 3)):
            reply = d.put("/api/v1/models/bad", data)
            self.assertIn(reply.status, (400, 422), reply)
            self.assertIn(reply.json()["code"], ("bad_request", "invalid_model"))

    def test_cut_off(self):
        for cut in list(range(1, 60, 7)) + [len(GEMM) // 2, len(GEMM) - 1]:
            reply = d.put("/api/v1/models/bad", GEMM[:cut])
            self.assertIn(reply.status, (400, 422), (cut, reply))

    def test_claimed_shape_of_2_to_the_60(self):
        big = tensor("w", [1 << 30, 1 << 30], b"\0" * 16)
        self.upload(model([node("Add", ["x", "w"], ["y"], "n1")], initializers=[big]), 422, "invalid_model", "w")

    def test_cycle(self):
        self.upload(model([node("Add", ["x", "b"], ["a"], "n1"), node("Relu", ["a"], ["b"], "n2"),
                           node("Relu", ["b"], ["y"], "n3")]), 422, "invalid_model", "n2", "cycle")

    def test_missing_initialiser(self):
        self.upload(model([node("Add", ["x", "nowhere"], ["y"], "n1")]), 422, "invalid_model", "n1", "nowhere")

    def test_unknown_operator_and_domain(self):
        self.upload(model([node("Frobnicate", ["x"], ["y"], "n1")]), 422, "unsupported_operator", "n1", "Frobnicate")
        self.upload(model([node("Relu", ["x"], ["y"], "n1", "org.example")], domains=("", "org.example")), 422,
                    "unsupported_operator", "n1", "org.example")

    # a fully connected layer 4 -> 4 whose weights are looked up in a codebook of int8
    def codebook(self, index=range(16), scale=0.5):
        return model(
            [node("Gather", ["book", "index"], ["codes"], "look"),
             node("DequantizeLinear", ["codes", "scale"], ["w"], "multiply"), node("MatMul", ["x", "w"], ["y"], "fc")],
            initializers=[tensor("book", [20], bytes(range(20)), dtype=S8), tensor("scale", [], struct.pack("<f", scale)),
                          tensor("index", [4, 4], struct.pack("<16i", *index), dtype=S32)])

    def test_an_index_outside_of_its_codebook(self):
        layer = d.post("/api/v1/models?dry_run=true", self.codebook()).json()["layers"][0]
        self.assertEqual((layer["id"], layer["form"], layer["params"], layer["nonzero"]), ("fc", "codebook", 16, 15))
        for wrong in (20, 30, -1, 2**31 - 1):
            self.upload(self.codebook([0, 1, wrong] + [3] * 13), 422, "invalid_model", "node 'fc'",
                        f"index 2 of its weights is {wrong}", "20 words")

    def test_scales_of_weights_that_cannot_be(self):
        for scale, word in ((0, "is zero"), (float("inf"), "not a finite number"), (float("nan"), "not a finite number")):
            self.upload(self.codebook(scale=scale), 422, "invalid_model", "node 'fc'", "scale 0 of its weights", word)

    def test_packed_codes_of_another_number_of_bits(self):
        table = bytes(b >> (2 * j) & 3 for b in range(256) for j in range(4))
        for n_bytes, words in ((4, ()), (5, ("node 'shaped'", "[5,4]", "[4,4]")), (2, ("node 'shaped'", "[2,4]"))):
            data = model(
                [node("Gather", ["table", "packed"], ["bytes"], "unpacked"),
                 node("Reshape", ["bytes", "shape"], ["codes"], "shaped"),
                 node("DequantizeLinear", ["codes", "scale"], ["w"], "multiply"), node("MatMul", ["x", "w"], ["y"], "fc")],
                initializers=[tensor("table", [256, 4], table, dtype=S8), tensor("scale", [], struct.pack("<f", 0.5)),
                              tensor("packed", [n_bytes], struct.pack(f"<{n_bytes}i", *range(n_bytes)), dtype=S32),
                              tensor("shape", [2], struct.pack("<2q", 4, 4), dtype=S64)])
            if words:
                self.upload(data, 422, "shape_mismatch", *words)
            else:
                self.assertEqual(d.post("/api/v1/models?dry_run=true", data).status, 200)

    def test_gaps_that_leave_the_tensor(self):
        with tempfile.TemporaryDirectory() as work:
            recipe, file = os.path.join(work, "recipe.json"), os.path.join(work, "sparse.onnx")
            with open(recipe, "w", encoding="ascii") as f:
                f.write('[{"method": "encode", "sparsity": 0.9, "activations": "float", "form": '
                        '{"structure": "sparse", "code": "s8"}, "layers": {"include": ["/fc2/Gemm"]}}]')
            subprocess.run([os.path.join(BUILD, "bonsai-worker"), "run", recipe, "--model",
                            os.path.join(ROOT, "clients", "demo", "lenet5_fashion.onnx"), "-o", file],
                           check=True, capture_output=True, timeout=60)
            with open(file, "rb") as f:
                good = f.read()
        layers = d.post("/api/v1/models?dry_run=true", good).json()["layers"]
        layer = next(row for row in layers if row["id"] == "/fc2/Gemm")
        self.assertEqual(layer["form"], "sparse")
        self.assertLess(layer["nonzero"], layer["params"] // 5)
        at = good.index(b"_gaps\x4a") + 6
        while good[at] & 128:  # the length
            at += 1
        self.upload(good[:at + 1] + b"\xff" * 200 + good[at + 201:], 422, "invalid_model", "node '/fc2/Gemm'",
                    "of its gaps puts a weight at", "outside of")

    def test_external_data(self):
        w = tensor("w", [1, 4], b"", external=True)
        self.upload(model([node("Add", ["x", "w"], ["y"], "n1")], initializers=[w]), 422, "invalid_model", "external")

    def test_too_large(self):
        self.refused(expect("PUT", "/api/v1/models/bad", 3 << 20), 413, "too_large")

    def test_names(self):
        for name in ("x" * 65, ".hidden", "a%20b", "-a", "stats"):
            self.refused(d.put(f"/api/v1/models/{name}", GEMM), 400, "bad_name")

    def test_other_content_under_a_name(self):
        self.refused(d.put("/api/v1/models/lenet", GEMM), 409, "exists", "lenet")

    def test_digest(self):
        head = {"Content-Digest": "sha-256=:" + "A" * 43 + "=:"}
        self.refused(d.put("/api/v1/models/bad", GEMM, headers=head), 400, "digest_mismatch")
        self.refused(d.put("/api/v1/models/bad", GEMM, headers={"Content-Digest": "sha-256=:x:"}), 400, "bad_request")

    def test_dry_run_keeps_nothing(self):
        self.assertEqual(d.post("/api/v1/models?dry_run=true", GEMM).status, 200)

    def test_labels_out_of_range(self):
        for labels in (["a"], ["x"] * 11):
            self.refused(d.request("PATCH", "/api/v1/models/lenet", {"labels": labels}), 422, "classes_do_not_match", "10")

    def test_patch_with_an_unknown_key(self):
        self.refused(d.request("PATCH", "/api/v1/models/lenet", {"colour": 1}), 400, "unknown_field", "colour")

    def test_json_of_depth_10000(self):
        self.refused(d.request("PATCH", "/api/v1/models/lenet", b"[" * 10000), 400, "bad_json")


class DataSets(Refusals):
    def upload(self, data, status, code, *words):
        self.refused(d.put("/api/v1/datasets/bad", data), status, code, *words)

    def test_not_an_archive(self):
        for data in (b"", b"hello, world" * 100, b"\x1f\x8b" + b"\xff" * 100, LENET[:1000]):
            self.upload(data, 422, "bad_dataset")

    def test_cut_off(self):
        whole = tar(*PICTURES)
        self.upload(whole[:len(whole) // 3], 422, "bad_dataset")

    def test_parent_folder(self):
        self.upload(tar(*PICTURES, ("../../etc/a/1.png", png(2, 2))), 422, "bad_dataset", "../../etc/a/1.png")

    def test_absolute_name(self):
        self.upload(tar(*PICTURES, ("/etc/a/1.png", png(2, 2))), 422, "bad_dataset", "/etc/a/1.png")

    def test_links_and_devices(self):
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            self.upload(tar(*PICTURES, special("train/a/evil.png", kind, "train/a/0.png")), 422, "bad_dataset",
                        "train/a/evil.png")

    def test_not_a_picture(self):
        self.upload(tar(*PICTURES, ("train/a/readme.txt", b"hello")), 422, "bad_dataset", "train/a/readme.txt")
        self.upload(tar(*PICTURES, ("train/a/bad.png", png(28, 28)[:60])), 422, "bad_dataset", "train/a/bad.png")

    def test_picture_bomb(self):
        self.upload(tar(*PICTURES, ("train/a/bomb.png", png(60000, 60000, b"\0" * 100))), 422, "bad_dataset",
                    "train/a/bomb.png")

    def test_expansion(self):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
            for i in range(3):
                with z.open(f"train/a/{i}.png", "w", force_zip64=True) as f:
                    f.write(PICTURES[0][1])
                    for _ in range(40):
                        f.write(bytes(1 << 20))
        self.upload(out.getvalue(), 413, "too_large", "expands")

    def test_members(self):
        one = png(1, 1)
        self.upload(tar(*((f"train/a/{i}.png", one) for i in range(2100))), 413, "too_large", "2000")

    def test_too_large(self):
        self.refused(expect("PUT", "/api/v1/datasets/bad", 65 << 20), 413, "too_large")

    def test_names(self):
        self.refused(d.put("/api/v1/datasets/" + "x" * 65, tar(*PICTURES)), 400, "bad_name")
        self.refused(d.put("/api/v1/datasets/bad?split=a%20b", tar(*PICTURES)), 400, "bad_name")
        self.refused(d.put("/api/v1/datasets/bad?split=val", tar(*PICTURES)), 422, "bad_dataset", "val")

    def test_other_content_under_a_name(self):
        self.refused(d.put("/api/v1/datasets/fashion", tar(*PICTURES)), 409, "exists", "fashion")


class Jobs(Refusals):
    BODY = {"kind": "compress", "model": "lenet", "variant": "small", "dataset": "fashion",
            "steps": [{"method": "quantize", "scheme": "int8"}]}

    def post(self, status, code, *words, **change):
        body = {k: v for k, v in {**self.BODY, **change}.items() if v != "absent"}
        self.refused(d.post("/api/v1/jobs", body), status, code, *words)
        self.refused(d.post("/api/v1/jobs?dry_run=true", body), status, code, *words)

    def test_unknown_keys(self):
        self.post(400, "unknown_field", "colour", colour=1)
        self.post(400, "unknown_field", "steps[0]", "colour", steps=[{"method": "quantize", "scheme": "int8", "colour": 1}])
        self.post(400, "unknown_field", "limits.colour", limits={"colour": 1})
        self.post(400, "unknown_field", "require.colour", require={"colour": 1})

    def test_wrong_values(self):
        self.post(400, "bad_request", "steps", steps=[])
        self.post(400, "bad_request", "steps", steps="absent")
        self.post(400, "bad_request", "steps", steps=[1])
        self.post(400, "bad_request", "steps[0]", steps=[{"scheme": "int8"}])
        self.post(400, "bad_request", "steps[0]", steps=[{"method": "shrink-ray"}])
        self.post(400, "bad_request", "steps[0]", "scheme", steps=[{"method": "quantize", "scheme": "int99"}])
        self.post(400, "bad_request", "recipe", steps="absent", recipe="no-such")
        self.post(400, "bad_request", "seed", seed=-1)
        self.post(400, "bad_request", "evaluate", evaluate=3)
        self.post(400, "bad_request", "limits.seconds", limits={"seconds": 0})
        self.post(400, "bad_request", "kind", kind="magic")
        self.post(501, "not_implemented", "auto", kind="auto")

    def test_names(self):
        self.post(400, "bad_name", variant="x" * 65)
        for name in ("original", "parent", "123"):
            self.post(400, "bad_name", name, variant=name)

    def test_things_that_are_not_there(self):
        self.post(404, "not_found", "nosuch", model="nosuch")
        self.post(404, "not_found", "nosuch", dataset="nosuch")
        self.post(404, "not_found", "nosuch", **{"from": "nosuch"})
        self.post(422, "data_required", "steps[0]", dataset="absent",
                  steps=[{"method": "quantize", "scheme": "int8", "recover": {"calibrate": {"samples": 8}}}])
        for verb, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")):
            self.refused(d.request(verb, f"/api/v1/jobs/01a20dcd-09d5-7a94-b8d4-8e689b0f22f6{path}"), 404, "not_found")

    def test_not_json(self):
        for body in (b"", b"{", b"[1,2", b'{"kind": NaN}', b"\xff\xfe", b"[" * 10000, b'{"a":' * 10000):
            reply = d.post("/api/v1/jobs", body)
            self.refused(reply, 400, "bad_json")

    def test_body_too_large(self):
        self.refused(expect("POST", "/api/v1/jobs", 65 << 20), 413, "too_large")


class Kept(unittest.TestCase):
    """What is accepted although it is of little use, and what must go on."""

    def test_one_class_is_accepted_and_evaluation_refused(self):
        one = [(f"test/a/{i}.png", png(28, 28, (b"\0" + bytes([i * 50]) * 28) * 28)) for i in range(3)]
        self.assertEqual(d.put("/api/v1/datasets/one", tar(*one)).status, 201)
        reply = d.post("/api/v1/jobs", {"kind": "evaluate", "model": "lenet", "dataset": "one"})
        self.assertEqual(reply.status, 422, reply)
        self.assertEqual(d.delete("/api/v1/datasets/one").status, 204)

    def test_lists_are_newest_first_and_come_in_pages(self):
        for name in ("zebra", "ant"):
            self.assertEqual(d.put(f"/api/v1/datasets/{name}", tar(*PICTURES)).status, 201)
            self.assertEqual(d.put(f"/api/v1/models/{name}", LENET + b"\xc2\x3e\x01" + name[:1].encode()).status, 201)
        for kind, last in (("datasets", "fashion"), ("models", "lenet")):
            seen, cursor = [], ""
            for _ in range(4):
                page = d.get(f"/api/v1/{kind}?limit=1{cursor}").json()
                seen += [i["name"] for i in page["items"]]
                if not page["next_cursor"]:
                    break
                cursor = f"&cursor={page['next_cursor']}"
            self.assertEqual(seen, ["ant", "zebra", last], kind)
            for name in ("zebra", "ant"):
                self.assertEqual(d.delete(f"/api/v1/{kind}/{name}").status, 204)

    def test_job_on_a_model_deleted_under_it(self):
        self.assertEqual(d.put("/api/v1/models/gone", LENET + b"\xc2\x3e\x01\x00").status, 201)
        reply = d.post("/api/v1/jobs", {**Jobs.BODY, "model": "gone"})
        self.assertEqual(reply.status, 202, reply)
        job = reply.json()["id"]
        refused = d.delete("/api/v1/models/gone")
        if refused.status != 204:
            self.assertEqual(refused.status, 409, refused)
            self.assertTrue(refused.json()["details"]["users"])
        self.assertIn(d.delete("/api/v1/models/gone?cascade=true").status, (204, 404))
        self.assertEqual(d.get("/api/v1/models/gone").status, 404)
        reply = d.get(f"/api/v1/jobs/{job}")
        if reply.status == 200:
            self.assertIn(d.wait_job(job, 30)["state"], ("cancelled", "succeeded", "failed"))
        self.assertEqual(d.post("/api/v1/jobs", {**Jobs.BODY, "model": "gone"}).status, 404)

    def test_the_same_request_id_twice(self):
        """Two uploads at once under one Request-Id do not meet in a temporary file."""
        def one(name, data):
            code = ("import sys,http.client as h;c=h.HTTPConnection('127.0.0.1',%d,timeout=60);"
                    "c.request('PUT','/api/v1/datasets/%s',sys.stdin.buffer.read(),{'Request-Id':'same'});"
                    "print(c.getresponse().status)") % (d.port, name)
            p = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            p.stdin.write(data)
            p.stdin.close()
            return p

        both = [one("left", FASHION), one("right", tar(*PICTURES))]
        for p in both:
            self.assertEqual(p.stdout.read().strip(), b"201")
            p.stdout.close()
            self.assertEqual(p.wait(60), 0)
        self.assertEqual(d.get("/api/v1/datasets/left").json()["count"], 200)
        self.assertEqual(d.get("/api/v1/datasets/right").json()["count"], 6)
        for name in ("left", "right"):
            self.assertEqual(d.delete(f"/api/v1/datasets/{name}").status, 204)

    def test_a_model_of_a_deleted_ones_name_has_no_past(self):
        self.assertEqual(d.put("/api/v1/models/again", LENET + b"\xc2\x3e\x01\x02").status, 201)
        job = d.post("/api/v1/jobs", {"kind": "evaluate", "model": "again", "dataset": "fashion"}).json()["id"]
        self.assertEqual(d.wait_job(job, 120)["state"], "succeeded")
        path = "/api/v1/models/again/variants/original/evaluations"
        self.assertEqual(len(d.get(path).json()["items"]), 1)
        job = d.post("/api/v1/jobs", {**Jobs.BODY, "model": "again"}).json()["id"]
        self.assertEqual(d.wait_job(job, 120)["state"], "succeeded")
        self.assertEqual(len(d.get("/api/v1/models/again/variants/small/evaluations").json()["items"]), 1)
        self.assertEqual(d.delete("/api/v1/models/again?cascade=true").status, 204)
        self.assertEqual(d.put("/api/v1/models/again", LENET + b"\xc2\x3e\x01\x03").status, 201)
        self.assertEqual(d.get(path).json()["items"], [])
        self.assertEqual(d.delete("/api/v1/models/again").status, 204)


    def test_outputs_that_overflow_are_compared(self):
        """Infinity in one variant's output is null in JSON, as in the outputs themselves."""
        def times(w):
            return model([node("Mul", ["x", "w"], ["y"], "n1")], initializers=[tensor("w", [1, 4], struct.pack("<4f", *[w] * 4))])

        self.assertEqual(d.put("/api/v1/models/mul", times(1)).status, 201)
        self.assertEqual(d.put("/api/v1/models/mul/variants/twice", times(2)).status, 201)
        x = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [3e38] * 4}
        reply = d.post("/api/v1/models/mul/compare", {"inputs": [x]})
        self.assertEqual(reply.status, 200, reply)
        row = reply.json()["variants"][1]
        self.assertEqual((row["outputs"][0]["data"], row["max_abs_diff"], row["cosine"]), ([None] * 4, None, None))
        self.assertEqual(d.delete("/api/v1/models/mul?cascade=true").status, 204)


    def test_a_bench_makes_no_input_larger_than_a_body_may_be(self):
        wide = 1 << 19  # floats; a batch of 64 has 128 MiB
        onnx = model([node("Relu", ["x"], ["y"], "n1")], inputs=(("x", ["N", wide]),), outputs=(("y", ["N", wide]),))
        self.assertEqual(d.put("/api/v1/models/wide", onnx).status, 201)
        path = "/api/v1/models/wide/variants/original/bench"
        reply = d.post(path, {"seconds": 0.1, "batch": 64})
        self.assertEqual((reply.status, reply.json()["code"]), (413, "too_large"), reply)
        self.assertEqual(d.post(path, {"seconds": 0.1}).status, 200)
        self.assertEqual(d.delete("/api/v1/models/wide").status, 204)


class Clients(Refusals):
    def test_one_that_stops_halfway(self):
        for what in ("models/half", "datasets/half"):
            with socket.create_connection(("127.0.0.1", d.port), timeout=20) as s:
                s.sendall(f"PUT /api/v1/{what} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n".encode())
                s.sendall(bytes(200000))

    def test_one_byte_a_second(self):
        with socket.create_connection(("127.0.0.1", d.port), timeout=1) as s:
            s.sendall(b"PUT /api/v1/models/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n")
            end, closed = time.monotonic() + 25, False
            while not closed and time.monotonic() < end:
                try:
                    s.sendall(b"x")
                    closed = s.recv(1000) == b""
                except TimeoutError:
                    pass  # nothing said within a second: the next byte
                except OSError:
                    closed = True
            self.assertTrue(closed, "a client of one byte a second is never cut")

    def test_a_thousand_idle_connections(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        idle = []
        try:
            for _ in range(1000):
                idle.append(socket.create_connection(("127.0.0.1", d.port), timeout=5))
            began = time.monotonic()
            for _ in range(50):
                self.assertEqual(d.get("/v2/health/ready").status, 200)
            self.assertLess(time.monotonic() - began, 5)
        finally:
            for s in idle:
                s.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Budgets(unittest.TestCase):
    def test_memory_budget(self):
        with Daemon(BUILD, "--memory", "600000") as small:
            small.wait_ready()
            self.assertEqual(small.put("/api/v1/models/a", LENET).status, 201)  # never fails for memory
            reply = small.post("/api/v1/models/a/variants/original/load")
            self.assertEqual(reply.status, 507, reply)
            self.assertEqual(reply.json()["code"], "memory_budget")
            self.assertGreater(reply.json()["details"]["needed_bytes"], 0)
            self.assertEqual(small.get("/api/v1/models/a/variants/original").json()["state"], "unloaded")

    def test_disk_budget_says_what_is_needed_and_what_there_is(self):
        with Daemon(BUILD, env={"BONSAID_MAX_DISK_SHARE": "0.01"}) as small:
            small.wait_ready()
            disk = small.get("/api/v1/status").json()["disk"]
            if disk["budget_bytes"] > disk["used_bytes"]:
                self.skipTest("the disk is all but empty")
            for path in ("models/m", "datasets/s"):
                reply = small.put(f"/api/v1/{path}", LENET)
                self.assertEqual((reply.status, reply.json()["code"]), (507, "disk_budget"), reply)
                self.assertEqual(reply.json()["details"], {"needed_bytes": len(LENET), "available_bytes": 0})

    @unittest.skipIf(os.geteuid() != 0, "mounting a small tmpfs needs root")
    def test_disk_full(self):
        state = tempfile.mkdtemp(prefix="bonsaid-full-")
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", state], capture_output=True, check=False).returncode:
            os.rmdir(state)
            self.skipTest("a tmpfs cannot be mounted here")
        full = Daemon(BUILD, state=state, env={"BONSAID_MAX_DISK_SHARE": "1.0"})
        try:
            full.start()
            full.wait_ready()
            kept, last = [], None
            for i in range(20):
                last = full.put(f"/api/v1/models/m{i}", LENET + b"\xc2\x3e\x01" + bytes([i]))
                if last.status != 201:
                    break
                kept.append(f"m{i}")
            self.assertEqual(last.status, 507, last)
            self.assertEqual(last.json()["code"], "disk_budget", last)
            self.assertTrue(kept)
            # without a length the disk itself says it, in mid-body: answered when little is left, else closed
            body = LENET + bytes((4 << 20) - len(LENET) * len(kept))
            try:
                reply = full.put("/api/v1/models/chunked", iter([body]))
                self.assertEqual((reply.status, reply.json()["code"]), (507, "disk_budget"), reply)
            except (BrokenPipeError, ConnectionResetError):
                pass
            self.assertEqual(sorted(m["name"] for m in full.get("/api/v1/models").json()["items"]), sorted(kept))
            Daemon.wait(lambda: not os.listdir(os.path.join(state, "tmp")), 10, "nothing is left in tmp/")
            self.assertEqual(full.delete(f"/api/v1/models/{kept[0]}").status, 204)
            full.kill()
            full.start()
            self.assertEqual(sorted(m["name"] for m in full.get("/api/v1/models").json()["items"]), sorted(kept[1:]))
        finally:
            full.kill()
            subprocess.run(["umount", "-l", state], check=False)
            shutil.rmtree(state, ignore_errors=True)


if __name__ == "__main__":
    BUILD = sys.argv.pop(1)
    unittest.main()
