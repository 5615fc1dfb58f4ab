#!/usr/bin/env python3
"""A test set as one .npy of a model's ready inputs, and its labels:  pictures.py SET DIR OUT STEP
SET: fashion, cifar10, clothing, textdir (DIR is the folder of data sets); every STEP-th picture. Writes OUT.x.npy and
OUT.y.npy. Needs python3-numpy and python3-pil."""
import io
import os
import sys
import tarfile

import numpy as np
from PIL import Image

FASHION_MEAN, FASHION_STD = 0.286, 0.353
CIFAR_MEAN, CIFAR_STD = [0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]
CIFAR = "airplane automobile bird cat deer dog frog horse ship truck".split()


def pictures(path, step):
    """(class folder, RGB picture) of every step-th regular file."""
    with tarfile.open(path) as tar:
        members = [m for m in tar if m.isfile() and m.name.lower().endswith((".png", ".jpg", ".jpeg"))]
        for m in members[::step]:
            yield m.name.split("/")[-2], Image.open(io.BytesIO(tar.extractfile(m).read())).convert("RGB")


def fashion(folder, step):
    d = np.load(os.path.join(folder, "fashion-mnist-test.npz"))
    x = d["images"].reshape(-1, 28, 28, 1)[::step].astype(np.float32) / 255
    return (x - FASHION_MEAN) / FASHION_STD, d["labels"][::step]


def cifar10(folder, step):
    items = list(pictures(os.path.join(folder, "cifar10-test-jpeg.tar.gz"), step))
    x = np.stack([np.asarray(p) for _, p in items]).astype(np.float32) / 255
    return (x - np.array(CIFAR_MEAN)) / np.array(CIFAR_STD), np.array([CIFAR.index(c) for c, _ in items])


def clothing(folder, step):
    items = [p.resize((224, 224), Image.BILINEAR) for _, p in pictures(os.path.join(folder, "clothing-test.tar"), step)]
    return np.stack([np.asarray(p) for p in items]).astype(np.float32) / 255, np.zeros(len(items))


def textdir(folder, step):
    items = list(pictures(os.path.join(folder, "textdir-test.tar"), step))
    x = np.stack([np.asarray(p)[:, :, ::-1] for _, p in items]).astype(np.float32) / 255
    return (x - 0.5) / 0.5, np.array([int(c == "180") for c, _ in items])


def main():
    name, folder, out, step = sys.argv[1:]
    x, y = {"fashion": fashion, "cifar10": cifar10, "clothing": clothing, "textdir": textdir}[name](folder, int(step))
    np.save(out + ".x.npy", np.ascontiguousarray(x.astype(np.float32).transpose(0, 3, 1, 2)))
    np.save(out + ".y.npy", y.astype(np.int64))


main()
