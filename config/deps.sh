#!/bin/sh
# Installs what bonsaid needs from Debian 12's own packages: sh config/deps.sh [build|test|demo|browser]...
# "build" (the default) is enough to build and run. Does nothing when everything is there.
set -eu

build="build-essential meson ninja-build pkg-config libdnnl-dev libgomp1 libmicrohttpd-dev libuv1-dev libjansson-dev
    libsqlite3-dev libssl-dev libcurl4-openssl-dev zlib1g-dev libjpeg62-turbo-dev libpng-dev libarchive-dev libzstd-dev
    libseccomp-dev libopenblas-dev liblapacke-dev"
test="libcmocka-dev clang libclang-rt-14-dev clang-format pmccabe python3 curl openssl systemd gzip"
demo="curl tar gzip dataset-fashion-mnist"
browser="chromium"

packages=
for group in "${@:-build}"; do
    case $group in
    build) packages="$packages $build" ;;
    test) packages="$packages $build $test" ;;
    demo) packages="$packages $build $demo" ;;
    browser) packages="$packages $browser" ;;
    *)
        echo "deps.sh: there is no group '$group': build, test, demo, browser" >&2
        exit 2
        ;;
    esac
done

missing=
for package in $packages; do
    case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
    installed) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    as_root=sudo
    command -v sudo >/dev/null || {
        echo "deps.sh: run as root or install sudo; missing:$missing" >&2
        exit 1
    }
fi
echo "installing:$missing"
install() {
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 $missing >/dev/null
}
install || {
    $as_root apt-get update -qq -o DPkg::Lock::Timeout=300
    install
}
