"""The data sets of the comparisons as both sides see them: an archive for bonsai-worker, and the same pictures decoded
for PyTorch, in the order in which bonsai-worker draws them. Needs python3-numpy and python3-pil."""
import hashlib
import io
import os
import tarfile

import numpy as np
from PIL import Image

SETS = {
    "fashion": {
        "train": "fashion-train.tar",  # made by make_fashion()
        "test": "fashion-mnist-test.tar",
        "few": ("fashion-few.tar", 20),  # every so many of train, by make_few()
        "mode": "L",
        "labels": ["T-shirt_top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                   "Ankle_boot"],
        "preprocess": {"color": "gray", "scale": 1 / 255, "mean": [0.286], "std": [0.353]},
    },
    "cifar10": {
        "train": "cifar10-train-jpeg.tar.gz",
        "test": "cifar10-test-jpeg.tar.gz",
        "few": ("cifar10-few.tar", 15),
        "mode": "RGB",
        "labels": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
        "preprocess": {"color": "rgb", "scale": 1 / 255, "mean": [0.4914, 0.4822, 0.4465],
                       "std": [0.247, 0.2435, 0.2616]},
    },
}


def make_fashion(npz, path):
    """The training pictures as PNG in folders train/CLASS: an npz without splits would be divided."""
    d = np.load(npz)
    with tarfile.open(path + ".new", "w") as tar:
        for i, (picture, label) in enumerate(zip(d["images"], d["labels"])):
            out = io.BytesIO()
            Image.fromarray(picture.reshape(28, 28)).save(out, "png")
            info = tarfile.TarInfo(f"train/{SETS['fashion']['labels'][label]}/{i:05}.png")
            info.size = out.tell()
            out.seek(0)
            tar.addfile(info, out)
    os.replace(path + ".new", path)


def make_few(source, path, every):
    with tarfile.open(source) as full, tarfile.open(path + ".new", "w") as few:
        for i, m in enumerate(m for m in full if m.isfile()):
            if i % every == 0:
                few.addfile(m, full.extractfile(m))
    os.replace(path + ".new", path)


def archive(name, split, folder, work):
    if split == "few":
        file, every = SETS[name]["few"]
        path = os.path.join(work, file)
        if not os.path.exists(path):
            make_few(archive(name, "train", folder, work), path, every)
        return path
    path = os.path.join(folder, SETS[name][split])
    if name == "fashion" and split == "train":
        path = os.path.join(work, SETS[name][split])
        if not os.path.exists(path):
            make_fashion(os.path.join(folder, "fashion-mnist-train.npz"), path)
    return path


def decoded(name, split, folder, work):
    """(pictures uint8 [n][h][w][c], labels, first eight bytes of the files' digests), in the order of the archive."""
    kept = os.path.join(work, f"{name}-{split}.npz")
    if not os.path.exists(kept):
        x, y, head = [], [], []
        with tarfile.open(archive(name, split, folder, work)) as tar:
            for m in tar:
                if m.isfile():
                    data = tar.extractfile(m).read()
                    x.append(np.asarray(Image.open(io.BytesIO(data)).convert(SETS[name]["mode"])))
                    y.append(SETS[name]["labels"].index(m.name.split("/")[-2]))
                    head.append(int.from_bytes(hashlib.sha256(data).digest()[:8], "little"))
        x = np.stack(x)
        np.savez(kept + ".new.npz", x=x.reshape(x.shape[:3] + (-1,)), y=np.array(y), head=np.array(head, np.uint64))
        os.replace(kept + ".new.npz", kept)
    d = np.load(kept)
    return d["x"], d["y"], d["head"]


def divided(head):
    """Indices of what is learned from and of what is held out, as compress/learn.h says."""
    held_out = head % np.uint64(10) == 0
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def splitmix(x):
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def order(seed, epoch, n):
    """The order of an epoch, counted from 0: that of bonsai-worker."""
    key = splitmix(np.array([(seed * 1000003 + epoch) % 2**64], np.uint64))
    return np.argsort(splitmix(key ^ np.arange(n, dtype=np.uint64)), kind="stable")


def ready(name, pictures):
    """Pictures as the network's input, float [n][c][h][w]."""
    p = SETS[name]["preprocess"]
    x = (pictures.astype(np.float64) * p["scale"] - np.array(p["mean"])) / np.array(p["std"])
    return np.ascontiguousarray(x.astype(np.float32).transpose(0, 3, 1, 2))
