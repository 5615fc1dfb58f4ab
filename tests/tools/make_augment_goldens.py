"""Goldens of compress/augment (Pillow 9.4). Prints lines
  rotate CHANNELS WIDTH HEIGHT ANGLE HEX                            Image.rotate, bilinear
  place CHANNELS WIDTH HEIGHT FLIP RIGHT DOWN ANGLE FACTOR HEX      Image.transform, bilinear
  color CHANNELS WIDTH HEIGHT BRIGHTNESS CONTRAST SATURATION HEX    ImageEnhance
The picture is noise: byte i is the top byte of a 32-bit LCG."""
import math
from PIL import Image, ImageEnhance

SIZES = [(1, 9, 7), (3, 9, 7), (3, 6, 11)]
PLACES = [(0, 0, 0, 10, 1.2), (1, 2, -1, 0, 0.7), (1, -3, 2, -33, 1.0), (0, 1, 1, 90, 1.5), (1, 0, 0, 180, 1.1)]
COLORS = [(0.6, 1, 1), (1.7, 1, 1), (1, 0.4, 1), (1, 1.9, 1), (1, 1, 0.3), (1, 1, 1.8), (1.3, 0.7, 1.4), (0.5, 1.6, 0)]


def noise(channels, width, height):
    v, out = 12345, bytearray()
    for _ in range(width * height * channels):
        v = (v * 1664525 + 1013904223) & 0xffffffff
        out.append(v >> 24)
    return Image.frombytes("L" if channels == 1 else "RGB", (width, height), bytes(out))


def place(im, flip, right, down, angle, factor):
    """Result (x, y), from the middle → turned back and shrunk → mirrored; Pillow adds the half pixel itself."""
    w, h = im.size
    c, s = math.cos(math.radians(angle)) / factor, math.sin(math.radians(angle)) / factor
    u, v = right - w / 2, down - h / 2
    a = [c, -s, c * u - s * v + w / 2, s, c, s * u + c * v + h / 2]
    if flip:
        a[:3] = [-a[0], -a[1], w - a[2]]
    return im.transform(im.size, Image.Transform.AFFINE, a, Image.Resampling.BILINEAR)


for channels, width, height in SIZES:
    im, size = noise(channels, width, height), f"{channels} {width} {height}"
    for angle in (15, -70):
        print("rotate", size, angle, im.rotate(angle, Image.Resampling.BILINEAR).tobytes().hex())
    for row in PLACES:
        print("place", size, *row, place(im, *row).tobytes().hex())
    for row in COLORS:
        out = im
        for enhance, factor in zip((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), row):
            out = enhance(out).enhance(factor)
        print("color", size, *row, out.tobytes().hex())
