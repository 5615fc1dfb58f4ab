"""The download container of a file: what GET …/onnx?container=zst gives, made here by the same library and settings
(zstd, level 22, a window of 2^27). Needs the program zstd."""

import os
import subprocess


def container_bytes(path):
    out = path + ".zst"
    if not os.path.exists(out) or os.path.getmtime(out) < os.path.getmtime(path):
        subprocess.run(["zstd", "-22", "--ultra", "--long=27", "-q", "-f", path, "-o", out], check=True)
    return os.path.getsize(out)
