#!/bin/sh
# The shipped unit is as closed as it can be (exposure at most 2.0 of 10) and is understood by systemd.
set -eu
command -v systemd-analyze >/dev/null || exit 77
cd "${1:-.}/systemd"
systemd-analyze security --offline=true --threshold=20 --no-pager bonsaid.service | tail -1

# verify wants the program to be there: another of the same kind stands in
copy=$(mktemp -d)
trap 'rm -r "$copy"' EXIT
sed 's|/usr/bin/bonsaid|/bin/true|' bonsaid.service >"$copy/bonsaid.service"
cp bonsaid.socket "$copy/bonsaid.socket"
complaints=$(systemd-analyze verify --man=no "$copy/bonsaid.service" "$copy/bonsaid.socket" 2>&1 | grep bonsaid || true)
[ -z "$complaints" ] || {
    echo "$complaints" >&2
    exit 1
}
