#!/usr/bin/env python3
"""Who may include whom (ARCHITECTURE.md): fails on any other edge. Also: only the files named below may include
the header of a library that the design keeps in one place."""

import pathlib
import re
import sys

MAY = {
    "base": {"base"},
    "config": {"config", "base"},
    "image": {"image", "base"},
    "engine": {"engine", "base"},
    "compress": {"compress", "engine", "image", "config", "base"},
    "daemon": {"daemon", "engine", "config", "base"},
    "api": {"api", "daemon", "engine", "image", "config", "base"},
    "clients": {"clients", "base"},
}
# wires all
EXTRA = {name: {"api", "image"} for name in ("daemon/main.c", "daemon/app.c", "daemon/app.h")}
# library header: the folders or files that alone may include it
ONLY = {
    "microhttpd.h": ("api/server_priv.h",),
    "dnnl.h": ("engine/onednn.", "engine/kernel/", "engine/train/"),
    "oneapi/dnnl/dnnl.h": ("engine/onednn.", "engine/kernel/"),
    "cblas.h": ("compress/linalg.c",),
    "lapacke.h": ("compress/linalg.c",),
    "sqlite3.h": ("daemon/",),
    "archive.h": ("compress/",),
    "curl/curl.h": ("clients/",),
    "uv.h": ("api/", "daemon/"),
    "jpeglib.h": ("image/",),
    "png.h": ("image/", "api/dataset_item.c"),  # the second writes one, reads none
}
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.MULTILINE)


def check_file(root, path):
    name = path.relative_to(root).as_posix()
    folder = name.split("/")[0]
    text = path.read_text(encoding="utf-8", errors="replace")
    for kind, header in INCLUDE.findall(text):
        if kind == '"':
            target = header.split("/")[0]
            if "/" not in header:
                yield f'{name}: "{header}" is not included from the root'
            elif target not in MAY[folder] | EXTRA.get(name, set()):
                yield f'{name}: {folder} may not include "{header}"'
        elif header in ONLY and not name.startswith(ONLY[header]):
            yield f"{name}: <{header}> belongs to {', '.join(ONLY[header])} alone"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    complaints = []
    count = 0
    for folder in MAY:
        for path in sorted((root / folder).rglob("*.[ch]")):
            count += 1
            complaints += check_file(root, path)
    print("\n".join(complaints), file=sys.stderr)
    print(f"{count} files, {len(complaints)} wrong edges")
    return 1 if complaints or not count else 0


if __name__ == "__main__":
    sys.exit(main())
