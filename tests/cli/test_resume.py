#!/usr/bin/env python3
"""kill -9 at random instants of a training: what goes on from its checkpoints ends with the same bytes as an
undisturbed run, and a damaged checkpoint is none.

    python3 test_resume.py BONSAI-WORKER MODEL.onnx PREPROCESS.json [KILLS] [SEED]
"""

import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile

SIDE, CLASSES, PICTURES, MAX_SECONDS = 28, 10, 640, 60
STEPS = [{"method": "finetune", "epochs": 6, "batch": 32, "ema": 0.9, "optimizer": "adam", "lr": 0.001}]


def npy(kind, shape, data):
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    head += " " * (64 - (len(head) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + data


def pictures(path, rng):
    """Class c is a bright row 2c + 4 in noise."""
    images = bytearray(rng.randbytes(PICTURES * SIDE * SIDE))
    labels = bytes(rng.randrange(CLASSES) for _ in range(PICTURES))
    for i, label in enumerate(labels):
        start = (i * SIDE + 2 * label + 4) * SIDE
        images[start:start + SIDE] = b"\xff" * SIDE
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("images.npy", npy("|u1", (PICTURES, SIDE, SIDE, 1), bytes(images)))
        z.writestr("labels.npy", npy("|u1", (PICTURES,), labels))


class Training:
    def __init__(self, worker, model, preprocess, folder):
        self.folder, self.out = folder, os.path.join(folder, "out.onnx")
        self.checkpoint = os.path.join(folder, "checkpoint")
        recipe, data = os.path.join(folder, "recipe.json"), os.path.join(folder, "data.npz")
        with open(recipe, "w", encoding="ascii") as f:
            json.dump(STEPS, f)
        pictures(data, random.Random(5))
        self.command = [worker, "run", recipe, "--model", model, "--preprocess", preprocess, "--data", data, "--seed", "3",
                        "-o", self.out]

    def start(self, *more):
        return subprocess.Popen([*self.command, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def start_over(self, threads):
        return self.start("--checkpoint", self.checkpoint, "--checkpoint-seconds", "0", "--threads", str(threads))

    def result(self, process):
        text = process.communicate(timeout=MAX_SECONDS)[0]
        assert process.returncode == 0, text[-2000:]
        with open(self.out, "rb") as f:
            return f.read(), json.loads(text.splitlines()[-1])["done"]["steps"]

    def damage(self, rng):
        """A byte of a checkpoint is another one."""
        names = sorted(os.listdir(self.checkpoint)) if os.path.isdir(self.checkpoint) else []
        if names:
            with open(os.path.join(self.checkpoint, rng.choice(names)), "r+b") as f:
                size = f.seek(0, io.SEEK_END)
                at = rng.randrange(size)
                f.seek(at)
                byte = f.read(1)[0]
                f.seek(at)
                f.write(bytes([byte ^ 0x40]))


def main(worker, model, preprocess, kills=4, seed=1):
    rng = random.Random(int(seed))
    folder = tempfile.mkdtemp(prefix="bonsai-resume-")
    try:
        t = Training(worker, model, preprocess, folder)
        begin = time.monotonic()
        want = t.result(t.start())
        length = time.monotonic() - begin
        losses = [e["loss"] for e in want[1][0]["epochs"]]
        assert losses[-1] < 0.8 * losses[0], losses
        done = whole = 0
        while done < int(kills) or whole == 0:
            process = t.start_over(1 + done % 2)
            if done < int(kills):
                try:
                    process.wait(rng.uniform(0, 0.6 * length))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    done += 1
                    if done % 4 == 0:
                        t.damage(rng)
                    continue
            assert t.result(process) == want, f"after {done} kills: other bytes than undisturbed"
            whole += 1
            shutil.rmtree(t.checkpoint)
        print(f"{done} kills, {whole} trainings with the undisturbed one's bytes")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
