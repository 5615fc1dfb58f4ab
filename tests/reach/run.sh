#!/bin/sh
# What methods reach on real data: sh tests/reach/run.sh NAME --data DIR [--seed N] [--quick] [--threads N]
# DIR is a folder with datasets/ and models/. NAME is a program NAME.py beside this file. Figures are printed as a table;
# the exit status tells whether all of it was reached. What was computed lies under BUILD/reach (BUILD: the build folder)
# and is not computed again; a run that was stopped goes on.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
name=${1:-}
if [ -z "$name" ] || [ ! -f "$here/$name.py" ]; then
    echo "usage: sh tests/reach/run.sh NAME --data DIR [--seed N] [--quick] [--threads N]; NAME is one of:" >&2
    for f in "$here"/*.py; do
        grep -q '^import reach' "$f" && basename "$f" .py >&2
    done
    exit 2
fi
shift
BUILD=${BUILD:-$(cd "$here/../.." && pwd)/build}
export BUILD
exec python3 "$here/$name.py" "$@"
