#!/usr/bin/env python3
"""No function over 100 lines or a complexity over 20 (modified McCabe of pmccabe: a switch counts once); the inner
loops of engine/kernel/ and tests are excepted. Reports the longest files."""

import pathlib
import shutil
import subprocess
import sys

MAX_LINES, MAX_COMPLEXITY = 100, 20
FOLDERS = ("base", "config", "image", "engine", "compress", "daemon", "api", "clients")
EXEMPT = ("engine/kernel/",)


def functions(root, files):
    out = subprocess.run(["pmccabe", *files], cwd=root, capture_output=True, text=True, check=True).stdout
    for line in out.splitlines():
        fields = line.split("\t")
        if len(fields) == 6:
            complexity, _, _, _, lines, where = fields
            yield int(complexity), int(lines), where


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    if not shutil.which("pmccabe"):
        print("pmccabe is not installed")
        return 77
    files = [p.relative_to(root).as_posix() for f in FOLDERS for p in sorted((root / f).rglob("*.c"))]
    wrong = count = 0
    for complexity, lines, where in functions(root, files):
        count += 1
        if where.startswith(EXEMPT):
            continue
        if complexity > MAX_COMPLEXITY or lines > MAX_LINES:
            wrong += 1
            print(f"{where}: {lines} lines, complexity {complexity}", file=sys.stderr)
    longest = sorted(((len((root / f).read_text().splitlines()), f) for f in files), reverse=True)[:5]
    print("longest files:", ", ".join(f"{f} {n}" for n, f in longest))
    print(f"{count} functions, {wrong} too long or too complex")
    return 1 if wrong or not count else 0


if __name__ == "__main__":
    sys.exit(main())
