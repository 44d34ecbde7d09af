#!/bin/bash
# Makes a libsystemd.so.0 for a machine that has no systemd:
#
#   stub-systemd.sh PROGRAM OUTPUT
#
# It has the functions of libsystemd that PROGRAM (crun) asks for, with the versions that it asks for, and each
# answers -ENOSYS, as the real ones do where there is no bus to talk to. The real library and the five that it
# brings along are half of the initramfs and of crun's start, and the guest has no systemd that they could reach
# (the agent says --cgroup-manager=cgroupfs).
set -euo pipefail

die() { echo "guest/initramfs/stub-systemd.sh: $*" >&2; exit 1; }
[ $# -eq 2 ] || die "usage: stub-systemd.sh PROGRAM OUTPUT"
work=$(mktemp -d "${TMPDIR:-/tmp}/tsvmm-stub.XXXXXX")
trap 'rm -rf "$work"' EXIT

# `NAME VERSION` for each, as in `U sd_notify@LIBSYSTEMD_209`.
nm -D --with-symbol-versions "$1" | sed -n 's/^ *U \([A-Za-z0-9_]*\)@*\(LIBSYSTEMD_[0-9]*\)$/\1 \2/p' |
  LC_ALL=C sort > "$work/symbols"
[ -s "$work/symbols" ] || die "$1 asks for nothing of libsystemd"

# ENOSYS is 38. The arguments don't matter: the caller passes and removes them.
sed 's/^\([^ ]*\) .*/int \1(void);\nint \1(void) { return -38; }/' "$work/symbols" > "$work/stub.c"
for version in $(cut -d' ' -f2 "$work/symbols" | sort -u); do
  echo "$version { global: $(awk -v v="$version" '$2 == v { printf "%s; ", $1 }' "$work/symbols")};"
done > "$work/versions"
cd "$work"
gcc -Os -Wall -Wextra -Werror -shared -fPIC -nostdlib -s -Wl,-soname,libsystemd.so.0 -Wl,--build-id=none \
  -Wl,-z,noseparate-code -Wl,--version-script=versions -o stub.so stub.c
install -m 0644 stub.so "$2"
