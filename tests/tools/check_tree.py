#!/usr/bin/env python3
"""What must not stand in the tree: names of package registries' hosts, paths of somebody's machine, work left for
later, long files of data."""

import pathlib
import re
import subprocess
import sys

MAX_BYTES = 1 << 20
# written so that this file does not find itself
FORBIDDEN = [
    (re.compile(rb"registry\." + rb"[a-z]+js\.(org|com)|pypi\." + rb"org|files\.python" + rb"hosted|static\.crates" + rb"\.io|proxy\.golang" + rb"\.org"),
     "a registry's host"),
    (re.compile(rb"(?<![\w.])/work" + rb"/(main|shared)|/tmp" + rb"/w/|/home" + rb"/[a-z]+/"), "a path of one machine"),
    (re.compile(rb"\b(TO" + rb"DO|FIX" + rb"ME|X" + rb"XX)\b"), "work left for later"),
]


def check_file(path, name):
    data = path.read_bytes()
    if len(data) > MAX_BYTES:
        yield f"{name}: {len(data)} bytes"
    if b"\0" in data[:8192]:
        return
    for pattern, what in FORBIDDEN:
        found = pattern.search(data)
        if found:
            line = data.count(b"\n", 0, found.start()) + 1
            yield f"{name}:{line}: {what}: {found.group(0).decode(errors='replace')}"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=False).stdout.split(b"\0")
    names = [n.decode() for n in listed if n]
    if not names:  # not a clone: an unpacked source
        names = [p.relative_to(root).as_posix() for p in root.rglob("*")
                 if p.is_file() and not p.relative_to(root).parts[0].startswith(("build", ".git"))]
    complaints = [c for n in names if (root / n).is_file() for c in check_file(root / n, n)]
    print("\n".join(complaints), file=sys.stderr)
    print(f"{len(names)} files, {len(complaints)} complaints")
    return 1 if complaints or not names else 0


if __name__ == "__main__":
    sys.exit(main())
