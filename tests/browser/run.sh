#!/bin/sh
# The built-in page in headless Chromium against a real daemon.
#   sh tests/browser/run.sh     BUILD: the build folder; NODE_FOLDER: where playwright-core is or goes (npm, on demand)
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD:-$root/build}
folder=${NODE_FOLDER:-$build/browser}
mkdir -p "$folder"
cp "$root/tests/browser/package.json" "$root/tests/browser/page.mjs" "$folder"
if [ ! -d "$folder/node_modules/playwright-core" ]; then
    (cd "$folder" && npm install --no-audit --no-fund --ignore-scripts >"$folder/npm.log" 2>&1)
fi
exec python3 "$root/tests/browser/run.py" "$build" "$folder"
