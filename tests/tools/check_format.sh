#!/bin/sh
# clang-format must leave every source file as it is. Version 14, Debian 12's: others break lines elsewhere.
set -eu
command -v clang-format >/dev/null || exit 77
cd "${1:-.}"
find base config image engine compress daemon api clients tests -name '*.[ch]' -not -path '*/node_modules/*' |
    xargs clang-format --dry-run -Werror
