#!/usr/bin/env python3
"""Every code of an error that the worker's side can give stands in the daemon's list of them (daemon/spawn.c): one that
does not would reach the caller as "internal" and 500."""

import pathlib
import re
import sys

WORKER = ("base", "compress", "config", "engine", "image")
GIVEN = re.compile(r'error_code\(\s*\w+,\s*[^,;"]+,\s*"([a-z_]+)"')


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    spawn = (root / "daemon" / "spawn.c").read_text(encoding="utf-8")
    known = set(re.findall(r'"([a-z_]+)"', re.search(r"codes\[\] = \{(.*?)\};", spawn, re.S).group(1)))
    given = [(code, path) for folder in WORKER for path in sorted((root / folder).rglob("*.c"))
             for code in GIVEN.findall(path.read_text(encoding="utf-8"))]
    unknown = [f"{path.relative_to(root)}: the daemon does not know the code '{code}'" for code, path in given if code not in known]
    print(f"{len(given)} errors with a code, {len(unknown)} unknown")
    print("\n".join(unknown))
    return 1 if unknown or len(given) < 100 else 0


if __name__ == "__main__":
    sys.exit(main())
