"""Goldens of tests/data/decode: what Pillow says about each picture (written with Pillow 9.4, libjpeg-turbo 2.1.5).
Usage: make_picture_goldens.py FOLDER, writes FOLDER/manifest.json."""
import hashlib, json, os, sys
from PIL import Image, ImageOps, ImageStat

def sha(image):
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]

def describe(path):
    with Image.open(path) as im:
        row = {"format": im.format, "size": list(im.size), "orientation": im.getexif().get(274)}
        if im.size[0] * im.size[1] > 50_000_000:
            return {**row, "decoded": "skipped: too large"}
        im.load()
        rgb = im.convert("RGB")
        row.update(decoded=True, rgb_mean=[round(v, 2) for v in ImageStat.Stat(rgb).mean], rgb_sha256=sha(rgb),
                   l_sha256=sha(im.convert("L")))
        if row["orientation"]:
            row["turned_sha256"] = sha(ImageOps.exif_transpose(im).convert("RGB"))
        return row

def main(folder):
    rows = {}
    for at, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = os.path.join(at, name)
            if not name.endswith((".png", ".jpg", ".gif", ".bmp", ".webp", ".tif")):
                continue
            try:
                row = describe(path)
            except Exception as e:
                row = {"error": type(e).__name__}
            rows[os.path.relpath(path, folder)] = row
    out = sys.argv[2] if len(sys.argv) > 2 else os.path.join(folder, "manifest.json")
    with open(out, "w") as f:
        f.write("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in rows.items()) + "\n}\n")

main(sys.argv[1])
