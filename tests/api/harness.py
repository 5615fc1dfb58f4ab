"""A real daemon for tests: started on a free loopback port with a state directory of its own, spoken to with the
standard library only. Every wait is bounded; stop() and kill() end the process that was started and no other."""

import http.client
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


def has_sanitizer(build):
    with open(os.path.join(build, "meson-info", "intro-buildoptions.json"), encoding="utf-8") as f:
        options = json.load(f)
    return next(o["value"] for o in options if o["name"] == "b_sanitize") != "none"


class Daemon:
    """build: meson's build directory. state: kept between starts when given, else a temporary directory."""

    def __init__(self, build, *flags, state=None, env=None):
        self.build, self.flags, self.env = build, list(flags), env or {}
        self.is_own_state = state is None
        self.state = state or tempfile.mkdtemp(prefix="bonsaid-test-")
        self.process = None
        self.port = None

    def start(self, timeout=30):
        command = [os.path.join(self.build, "bonsaid"), "--state", self.state, "--listen", "127.0.0.1:0", *self.flags]
        self.log = open(os.path.join(self.state, "stderr.log"), "ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log,
                                        env={**os.environ, "OMP_WAIT_POLICY": "passive",
                                             "BONSAID_MAX_DISK_SHARE": "1", **self.env})
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        line = self.process.stdout.readline().decode() if ready else ""
        if not line.startswith("listening on http://"):
            self.kill()
            raise RuntimeError(f"daemon did not start: {line!r}\n{self.stderr()[-2000:]}")
        self.port = urllib.parse.urlsplit(line.split()[2]).port
        return self

    def stderr(self):
        with open(os.path.join(self.state, "stderr.log"), encoding="utf-8", errors="replace") as f:
            return f.read()

    def peak_kib(self):
        """The most memory the daemon ever had."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            return int(next(line for line in f if line.startswith("VmHWM")).split()[1])

    def kill(self):
        """kill -9, as a power cut would."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self._reap(10)

    def stop(self, timeout=30):
        """SIGTERM; returns the exit status."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._reap(timeout)

    def _reap(self, timeout):
        if not self.process:
            return None
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            status = self.process.wait(10)
        self.process.stdout.close()
        self.log.close()
        self.process = None
        return status

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        status, said = self.stop(), self.stderr()
        if self.is_own_state:
            shutil.rmtree(self.state, ignore_errors=True)
        # of a build with sanitizers
        found = next((w for w in ("runtime error:", "ERROR: AddressSanitizer", "WARNING: ThreadSanitizer") if w in said), None)
        assert not found, said[max(0, said.index(found) - 200):][:4000]
        assert status in (0, None), f"the daemon ended with {status}: {said[-2000:]}"

    def request(self, method, path, body=None, headers=None, timeout=60):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            reply = connection.getresponse()
            return Reply(reply.status, reply.headers, reply.read())
        finally:
            connection.close()

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body=None, **kw):
        return self.request("POST", path, body=body, **kw)

    def put(self, path, body=None, **kw):
        return self.request("PUT", path, body=body, **kw)

    def delete(self, path, **kw):
        return self.request("DELETE", path, **kw)

    def wait_ready(self, timeout=60):
        return self.wait(lambda: self.get("/v2/health/ready").status == 200, timeout, "the daemon is ready")

    def wait_job(self, job_id, timeout=300, states=("succeeded", "failed", "cancelled")):
        found = []

        def is_final():
            job = self.get(f"/api/v1/jobs/{job_id}").json()
            found[:] = [job]
            return job["state"] in states

        self.wait(is_final, timeout, f"job {job_id} ends")
        return found[0]

    @staticmethod
    def wait(condition, timeout, what):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.02)
        raise TimeoutError(f"waited {timeout} s in vain until {what}")
