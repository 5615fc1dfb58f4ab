"""Makes tests/data/datasets/fashion-tiny.tar: pictures of Fashion-MNIST (MIT, Zalando) from Debian's package
dataset-fashion-mnist as PNG in train/CLASS and test/CLASS folders, the same bytes on every run.

    python3 tests/tools/make_fashion_tiny.py OUT.tar [FOLDER of the four idx files]
"""

import gzip
import io
import os
import struct
import sys
import tarfile
import zlib

CLASSES = ["T-shirt_top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle_boot"]
PER_CLASS = {"train": 10, "t10k": 10}


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels):
    rows = b"".join(b"\0" + pixels[y * 28:(y + 1) * 28] for y in range(28))
    header = struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def main():
    folder = sys.argv[2] if len(sys.argv) > 2 else "/usr/share/datasets/fashion-mnist"
    with tarfile.open(sys.argv[1], "w", format=tarfile.USTAR_FORMAT) as tar:
        for part, split in (("train", "train"), ("t10k", "test")):
            with gzip.open(os.path.join(folder, f"{part}-images-idx3-ubyte.gz")) as f:
                images = f.read(16 + 784 * 2000)[16:]
            with gzip.open(os.path.join(folder, f"{part}-labels-idx1-ubyte.gz")) as f:
                labels = f.read(8 + 2000)[8:]
            left = dict.fromkeys(range(10), PER_CLASS[part])
            for i, label in enumerate(labels):
                if not left[label]:
                    continue
                left[label] -= 1
                data = png(images[784 * i:784 * (i + 1)])
                info = tarfile.TarInfo(f"{split}/{CLASSES[label]}/{i:05d}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main()
