#!/bin/bash
# Builds what runs inside the machine:
#
#   guest/build.sh [OUT_DIR]        (default: guest/out)
#
#   bzImage          the guest kernel
#   initramfs.cpio   the agent as /init, crun and its libraries
#   hello.cpio       a guest that prints a line and powers off, for tests and the benchmark
#
# Each is kept in ${XDG_CACHE_HOME:-~/.cache}/tsvmm/guest/ under the hash of everything that it is made of, and
# is built only where that is not there. The Debian packages that this needs are in packages.txt.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/out}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tsvmm/guest

die() { echo "guest/build.sh: $*" >&2; exit 1; }
say() { echo "guest: $*"; }
version() { dpkg-query -W -f '${Package} ${Version}\n' "$@" 2>/dev/null || true; }
hash_of() { sha256sum | cut -c1-32; }

for tool in gcc g++ cmake python3 sha256sum crun busybox; do
  command -v $tool >/dev/null || die "$tool is missing; install the packages of guest/packages.txt"
done
mkdir -p "$out" "$cache"
out=$(cd "$out" && pwd)
work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT

# Puts a finished folder where the next build finds it; a second builder's is the same.
keep() {
  mv -T "$1" "$2" 2>/dev/null || [ -d "$2" ] || die "cannot write $2"
}

# Gives FILE of a cached folder to the out folder. Links where it can: these are large and never written.
publish() {
  local to=$out/$2
  cmp -s "$1" "$to" && return
  ln -f "$1" "$to.new" 2>/dev/null || cp "$1" "$to.new"
  mv "$to.new" "$to"
}

kernel_hash=$( { cat "$here/kernel/tsvmm.config" "$here/kernel/build.sh"; gcc --version | head -1
  [ -z "${LINUX_SOURCE:-}" ] || sha256sum < "$LINUX_SOURCE"
  version linux-source-6.1 binutils; } | hash_of)
kernel=$cache/kernel-$kernel_hash
if [ ! -e "$kernel/bzImage" ]; then
  say "building the kernel: 5 to 10 minutes, once"
  work=$(mktemp -d "$cache/building.XXXXXX")
  bash "$here/kernel/build.sh" "$work/result"
  keep "$work/result" "$kernel"
  rm -rf "$work"
fi
publish "$kernel/bzImage" bzImage

initramfs_hash=$( { cd "$here"
  find agent initramfs ../native/io/fd.h build.sh -type f -not -path 'agent/test/*' | LC_ALL=C sort | xargs sha256sum
  g++ --version | head -1
  version crun libc6 libc6-dev nlohmann-json3-dev libstdc++-12-dev libseccomp2 libcap2 libyajl2 binutils; } | hash_of)
initramfs=$cache/initramfs-$initramfs_hash
if [ ! -e "$initramfs/hello.cpio" ]; then
  say "building the agent"
  work=$(mktemp -d "$cache/building.XXXXXX")
  mkdir "$work/result"
  cmake -S "$here/agent" -B "$work/agent" -DCMAKE_BUILD_TYPE=MinSizeRel > "$work/log" 2>&1 &&
    cmake --build "$work/agent" --target tsvmm-agent -j "$(nproc)" >> "$work/log" 2>&1 ||
    { cat "$work/log" >&2; die "the agent did not compile; see above"; }
  say "writing the initramfs"
  mkdir "$work/lib"
  bash "$here/initramfs/stub-systemd.sh" "$(command -v crun)" "$work/lib/libsystemd.so.0"
  bash "$here/initramfs/files.sh" "$work/agent/tsvmm-agent" "$work/lib/libsystemd.so.0" > "$work/list"
  python3 "$here/initramfs/cpio.py" "$work/result/initramfs.cpio" < "$work/list"

  gcc -Os -Wall -Wextra -Werror -static -nostdlib -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables \
    -fcf-protection=none -no-pie -s -Wl,--build-id=none -Wl,-z,noseparate-code -o "$work/hello" "$here/initramfs/hello.c"
  printf '%s\n' "file /init $work/hello 0755 0 0" 'dir /dev 0755 0 0' 'nod /dev/console 0600 0 0 c 5 1' |
    python3 "$here/initramfs/cpio.py" "$work/result/hello.cpio"
  keep "$work/result" "$initramfs"
  rm -rf "$work"
fi
publish "$initramfs/initramfs.cpio" initramfs.cpio
publish "$initramfs/hello.cpio" hello.cpio
say "$out: bzImage, initramfs.cpio, hello.cpio"
