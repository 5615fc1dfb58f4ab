"""Goldens of image/preprocess: pictures of tests/data/decode through Pillow and NumPy, sizes and crops as torchvision
computes them. Writes a JSON list of {file, shape, preprocess, sha256 (16 digits) of the float32 result}.
Usage: make_preprocess_goldens.py TESTS_DATA > TESTS_DATA/preprocess/goldens.json"""
import hashlib, json, sys
import numpy as np
from PIL import Image, ImageOps

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "nearest": Image.Resampling.NEAREST}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
N = -1
CASES = [  # file, input shape, preprocess
    ("made/baseline.jpg", [N, 3, 32, 32], None),
    ("made/baseline.jpg", [1, 28, 28, 1], None),
    ("made/gray.jpg", [N, 3, 40, 30], {"scale": 1, "color": "bgr"}),
    ("made/opt_444.jpg", [N, 3, N, N], {"resize": {"mode": "bilinear", "size": 256, "crop": [224, 224]}, **IMAGENET}),
    ("made/opt_444.jpg", [N, N, N, 3], {"resize": {"mode": "bicubic", "size": 101, "crop": [100, 98]}, **IMAGENET}),
    ("made/opt_444.jpg", [N, 3, N, N], {"resize": {"size": 103, "crop": [100, 100]}}),
    ("made/opt_444.jpg", [N, 3, N, N], {"resize": {"size": 105, "crop": [100, 100]}}),
    ("made/opt_444.jpg", [N, 3, 260, 301], {"resize": {"mode": "nearest", "size": 200, "crop": [260, 301]}}),
    ("made/exif_orientation_3.jpg", [N, 3, 64, 48], {"exif": "ignore", "color": "bgr", "mean": [0.5, 0.4, 0.3]}),
    ("made/exif_orientation_3.jpg", [N, 3, 64, 48], {"exif": "apply"}),
    ("pillow/hopper_orientation_6.jpg", [N, 3, 64, 48], {"layout": "NCHW"}),
    ("made/palette64.png", [N, 48, 192, 3], {"color": "bgr", "scale": 1 / 127.5, "mean": [1, 1, 1]}),
    ("made/cmyk_progressive.jpg", [N, 1, 33, 31], {"mean": [0.1307], "std": [0.3081]}),
    ("made/gray16.png", [N, 1, 24, 24], {"resize": {"size": [24, 24], "mode": "bicubic"}}),
    ("pillow/pil136.png", [N, 3, 20, 20], {"resize": {"size": [50, 60], "crop": [20, 20]}}),
]

def resize(im, spec, h, w):
    size, mode = spec.get("size") or [h, w], FILTERS[spec.get("mode", "bilinear")]
    if isinstance(size, list):
        return im.resize((size[1], size[0]), mode)
    short, long = sorted(im.size)
    new_long = int(size * long / short)
    return im.resize((size, new_long) if im.size[0] <= im.size[1] else (new_long, size), mode)

def crop(a, ch, cw):
    h, w = a.shape[:2]
    pad = [((ch - h) // 2 if ch > h else 0, (ch - h + 1) // 2 if ch > h else 0),
           ((cw - w) // 2 if cw > w else 0, (cw - w + 1) // 2 if cw > w else 0), (0, 0)]
    a = np.pad(a, pad)
    h, w = a.shape[:2]
    top, left = int(round((h - ch) / 2.0)), int(round((w - cw) / 2.0))
    return a[top:top + ch, left:left + cw]

def run(path, shape, spec):
    spec = spec or {}
    is_nhwc = shape[1] not in (1, 3)
    c, h, w = (shape[3], shape[1], shape[2]) if is_nhwc else shape[1:]
    im = Image.open(path)
    if spec.get("exif") != "ignore":
        im = ImageOps.exif_transpose(im)
    im = resize(im.convert("L" if c == 1 else "RGB"), spec.get("resize", {}), h, w)
    a = np.asarray(im).reshape(im.size[1], im.size[0], c)
    if spec.get("resize", {}).get("crop"):
        a = crop(a, *spec["resize"]["crop"])
    if spec.get("color") == "bgr":
        a = a[:, :, ::-1]
    x = (a.astype(np.float64) * spec.get("scale", 1 / 255) - spec.get("mean", [0] * c)) / spec.get("std", [1] * c)
    x = x.astype(np.float32)
    return x if is_nhwc else np.ascontiguousarray(x.transpose(2, 0, 1))

rows = []
for name, shape, spec in CASES:
    x = run(f"{sys.argv[1]}/decode/{name}", shape, spec)
    rows.append({"file": name, "shape": shape, "preprocess": spec, "result": list(x.shape),
                 "sha256": hashlib.sha256(x.tobytes()).hexdigest()[:16]})
print("[" + ",\n".join(json.dumps(r) for r in rows) + "]")
