"""Who may do what: every route without a token, scopes, the Unix socket, TLS with and without client certificates.

    python3 tests/api/test_access.py BUILD
"""

import hashlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", ".."))
from tests.api.harness import Daemon  # noqa: E402

BUILD = None
SCOPES = {"reader": "read", "inferer": "infer", "uploader": "upload", "chief": "all"}


def bearer(name):
    return {"Authorization": f"Bearer {name}-secret"}


def write_tokens(folder, more=""):
    path = os.path.join(folder, "tokens")
    with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as f:
        for name, scopes in SCOPES.items():
            f.write(f"{name} {scopes} sha256:{hashlib.sha256(f'{name}-secret'.encode()).hexdigest()}\n")
        f.write(more)
    return path


class Tokens(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="bonsaid-access-")
        cls.unix = os.path.join(cls.folder, "s")
        cls.d = Daemon(BUILD, "--serve-only", "--token-file", write_tokens(cls.folder), "--listen", f"unix:{cls.unix}")
        cls.d.start()
        cls.d.wait_ready()

    @classmethod
    def tearDownClass(cls):
        cls.d.__exit__(None, None, None)
        shutil.rmtree(cls.folder)

    def test_every_route_is_closed_without_a_token_but_the_open_ones(self):
        paths = self.d.get("/openapi.json").json()["paths"]
        n = 0
        for path, verbs in paths.items():
            for verb, operation in verbs.items():
                is_open = operation.get("security") == []
                for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
                    reply = self.d.request(verb.upper(), path.replace("{", "").replace("}", ""), headers=headers)
                    self.assertEqual(reply.status == 401, not is_open, (verb, path, reply.status))
                    if not is_open:
                        self.assertEqual(reply.headers["WWW-Authenticate"], "Bearer")
                        self.assertEqual(reply.json()["code"], "unauthorized")
                n += 1
        self.assertGreater(n, 30)
        for path in ("/nothing", "/v2/models/nope"):
            self.assertEqual(self.d.get(path).status, 401)

    def test_only_health_page_and_the_interface_are_open(self):
        paths = self.d.get("/openapi.json").json()["paths"]
        opened = {path for path, verbs in paths.items() for o in verbs.values() if o.get("security") == []}
        for path in opened:
            self.assertTrue(path in ("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json",
                                     "/favicon.ico") or path.startswith("/page") or path.rsplit(".", 1)[-1] in ("js", "css"),
                            path)

    def test_a_token_in_the_url_is_worth_nothing(self):
        self.assertEqual(self.d.get("/v2?token=reader-secret").status, 401)

    def test_scopes(self):
        cases = [
            ("GET", "/v2", "reader", 200), ("GET", "/v2", "inferer", 200), ("GET", "/api/v1/models", "inferer", 403),
            ("GET", "/api/v1/models", "reader", 200), ("POST", "/v2/models/x/infer", "reader", 403),
            ("POST", "/v2/models/x/infer", "inferer", 404), ("PUT", "/api/v1/models/x", "reader", 403),
            ("DELETE", "/api/v1/models/x", "uploader", 404), ("POST", "/api/v1/jobs", "uploader", 403),
            ("POST", "/v2/repository/models/x/load", "inferer", 403), ("GET", "/api/v1/config", "reader", 403),
            ("GET", "/api/v1/config", "chief", 200), ("GET", "/metrics", "inferer", 403), ("GET", "/metrics", "reader", 200),
            ("PUT", "/api/v1/log-level", "reader", 403),
        ]
        for method, path, who, status in cases:
            self.assertEqual(self.d.request(method, path, headers=bearer(who)).status, status, (method, path, who))
        reply = self.d.put("/api/v1/log-level", {"level": "warning"}, headers=bearer("chief"))
        self.assertEqual((reply.status, reply.json()), (200, {"level": "warning"}))
        for bad in ({"level": "loud"}, {}, {"level": "info", "x": 1}):
            self.assertEqual(self.d.put("/api/v1/log-level", bad, headers=bearer("chief")).status, 400)

    def test_the_owner_on_the_unix_socket_may_everything(self):
        self.assertEqual(os.stat(self.unix).st_mode & 0o777, 0o660)
        c = http.client.HTTPConnection("any.host")
        c.sock = socket.socket(socket.AF_UNIX)
        c.sock.settimeout(10)
        c.sock.connect(self.unix)
        c.request("GET", "/api/v1/config")
        reply = c.getresponse()
        self.assertEqual(reply.status, 200)
        self.assertIn("max_body_bytes", json.loads(reply.read()))
        c.close()


def make_certificate(folder, name, ca=None):
    key, cert = os.path.join(folder, f"{name}.key"), os.path.join(folder, f"{name}.pem")
    sign = ["-CA", os.path.join(folder, f"{ca}.pem"), "-CAkey", os.path.join(folder, f"{ca}.key")] if ca else []
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                    key, "-out", cert, "-days", "2", "-subj", f"/CN={name}", *sign], check=True, capture_output=True, timeout=30)
    return cert, key


@unittest.skipUnless(shutil.which("openssl"), "needs the openssl program for certificates")
class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="bonsaid-tls-")
        cls.cert, key = make_certificate(cls.folder, "localhost")
        make_certificate(cls.folder, "ours")
        cls.known = make_certificate(cls.folder, "carl", "ours")
        cls.unknown = make_certificate(cls.folder, "nobody", "ours")
        os.mkdir(os.path.join(cls.folder, "foreign"))
        cls.foreign = make_certificate(os.path.join(cls.folder, "foreign"), "carl")
        cls.d = Daemon(BUILD, "--serve-only", "--token-file", write_tokens(cls.folder, "carl read -\n"), "--tls-cert", cls.cert,
                       "--tls-key", key, "--client-ca", os.path.join(cls.folder, "ours.pem"))
        cls.start(cls.d)

    @staticmethod
    def start(d):
        command = [os.path.join(d.build, "bonsaid"), "--state", d.state, "--listen", "127.0.0.1:0", *d.flags]
        d.log = open(os.path.join(d.state, "stderr.log"), "ab")
        d.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=d.log)
        line = d.process.stdout.readline().decode()
        assert line.startswith("listening on https://"), (line, d.stderr())
        d.port = int(line.rsplit(":", 1)[1])

    @classmethod
    def tearDownClass(cls):
        cls.d.__exit__(None, None, None)
        shutil.rmtree(cls.folder)

    def get(self, path, cert=None, headers=None, version=None):
        context = ssl.create_default_context(cafile=self.cert)
        context.check_hostname = False
        if cert:
            context.load_cert_chain(*cert)
        if version:
            context.minimum_version = context.maximum_version = version
        c = http.client.HTTPSConnection("localhost", self.d.port, timeout=10, context=context)
        try:
            c.request("GET", path, headers=headers or {})
            reply = c.getresponse()
            return reply.status, reply.read()
        finally:
            c.close()

    def test_tokens_work_over_tls(self):
        self.assertEqual(self.get("/v2")[0], 401)
        self.assertEqual(self.get("/v2", headers=bearer("reader"))[0], 200)
        self.assertEqual(self.get("/healthz")[0], 200)

    def test_client_certificates_have_the_scopes_of_their_name(self):
        self.assertEqual(self.get("/v2", self.known)[0], 200)
        self.assertEqual(self.get("/api/v1/config", self.known)[0], 403)
        self.assertEqual(self.get("/v2", self.unknown)[0], 401)
        self.assertEqual(self.get("/v2", self.foreign)[0], 401)
        self.assertEqual(self.get("/v2", headers={"Authorization": "Bearer -"})[0], 401)

    def test_tls_1_2_and_1_3(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            self.assertEqual(self.get("/healthz", version=version)[0], 200)


class Refusals(unittest.TestCase):
    def test_open_addresses_need_tls_and_tokens(self):
        with tempfile.TemporaryDirectory() as state:
            run = subprocess.run([os.path.join(BUILD, "bonsaid"), "--state", state, "--listen", "0.0.0.0:0"], capture_output=True,
                                 timeout=30, check=False)
            self.assertNotEqual(run.returncode, 0)
            self.assertIn(b"not a loopback address", run.stderr)

    def test_a_token_file_that_others_may_read_is_refused(self):
        with tempfile.TemporaryDirectory() as state:
            path = write_tokens(state)
            os.chmod(path, 0o604)
            run = subprocess.run([os.path.join(BUILD, "bonsaid"), "--state", state, "--listen", "127.0.0.1:0", "--token-file", path],
                                 capture_output=True, timeout=30, check=False)
            self.assertNotEqual(run.returncode, 0)
            self.assertIn(b"closed to others", run.stderr)


if __name__ == "__main__":
    BUILD = sys.argv.pop(1)
    unittest.main(verbosity=1)
