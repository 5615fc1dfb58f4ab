"""Goldens of image/resize (Pillow 9.4): prints `mode channels width height new_width new_height sha256[:16]` lines.
The picture is noise: byte i is the top byte of a 32-bit LCG."""
import hashlib
import numpy as np
from PIL import Image

SIZES = [(1, 1, 5, 3), (2, 3, 7, 11), (28, 28, 32, 32), (32, 32, 28, 28), (32, 32, 224, 224), (400, 533, 224, 224),
         (400, 534, 299, 299), (192, 48, 192, 32), (50, 60, 50, 61), (17, 400, 400, 17), (640, 480, 1, 1),
         (333, 77, 97, 333), (5, 5, 4, 6), (1, 700, 3, 7), (999, 3, 100, 100), (256, 341, 256, 341), (131, 97, 7, 5),
         (3, 2, 300, 200), (101, 103, 100, 102), (640, 360, 320, 240)]
MODES = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "nearest": Image.Resampling.NEAREST}

def noise(n):
    v, out = 12345, bytearray()
    for _ in range(n):
        v = (v * 1664525 + 1013904223) & 0xffffffff
        out.append(v >> 24)
    return np.frombuffer(bytes(out), np.uint8)

for w, h, nw, nh in SIZES:
    for c in (1, 3):
        pixels = noise(w * h * c)
        im = Image.fromarray(pixels.reshape(h, w) if c == 1 else pixels.reshape(h, w, 3))
        for name, mode in MODES.items():
            print(name, c, w, h, nw, nh, hashlib.sha256(im.resize((nw, nh), mode).tobytes()).hexdigest()[:16])
