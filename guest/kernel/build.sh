#!/bin/bash
# Builds the guest kernel from Debian's kernel source and tsvmm.config.
#
#   build.sh OUT_DIR [BUILD_DIR]
#
# Writes OUT_DIR/bzImage. Builds in BUILD_DIR where one is given (and keeps it: a second build there is
# incremental), otherwise in a temporary folder that is removed. LINUX_SOURCE names another source
# archive than Debian's. The same inputs and compiler give the same bytes.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
source_archive=${LINUX_SOURCE:-/usr/src/linux-source-6.1.tar.xz}
fragment=$here/tsvmm.config

die() { echo "guest/kernel/build.sh: $*" >&2; exit 1; }
say() { echo "guest kernel: $*"; }

[ $# -eq 1 ] || [ $# -eq 2 ] || die "usage: build.sh OUT_DIR [BUILD_DIR]"
for tool in gcc make flex bison bc lz4 tar xz; do
  command -v $tool >/dev/null || die "$tool is missing; guest/packages.txt lists the Debian packages"
done
[ -e /usr/include/libelf.h ] || die "libelf.h is missing: install libelf-dev"
[ -e "$source_archive" ] || die "$source_archive is missing: install linux-source-6.1"
mkdir -p "$1"
out=$(cd "$1" && pwd)
if [ $# -eq 2 ]; then
  mkdir -p "$2"
  build=$(cd "$2" && pwd)
else
  build=$(mktemp -d "${TMPDIR:-/tmp}/tsvmm-kernel.XXXXXX")
  trap 'rm -rf "$build"' EXIT
fi

# What would otherwise differ from one build to the next.
export KBUILD_BUILD_TIMESTAMP='1970-01-01 00:00:00 UTC' KBUILD_BUILD_USER=tsvmm KBUILD_BUILD_HOST=tsvmm
export KBUILD_BUILD_VERSION=1 LC_ALL=C TZ=UTC
unset MAKEFLAGS MAKELEVEL CFLAGS LDFLAGS

tree=$build/linux
if [ ! -e "$tree/.unpacked" ]; then
  say "unpacking $(basename "$source_archive")"
  rm -rf "$tree" && mkdir -p "$tree"
  tar -xf "$source_archive" -C "$tree" --strip-components=1
  touch "$tree/.unpacked"
fi
cd "$tree"

say "configuring"
make -s tinyconfig >/dev/null 2>&1 || die "make tinyconfig failed in $tree"
cat "$fragment" >> .config
make -s olddefconfig 2> "$build/config.log" || { cat "$build/config.log" >&2; die "make olddefconfig failed"; }

# A line whose dependencies are not met is dropped without a word: find those. An option that is off
# may also be absent from the result.
failed=()
while IFS= read -r line; do
  case $line in
    CONFIG_*=*) grep -qxF -- "$line" .config || failed+=("$line") ;;
    '# CONFIG_'*' is not set')
      name=${line#\# } name=${name% is not set}
      ! grep -q "^$name=" .config || failed+=("$name=n") ;;
  esac
done < "$fragment"
[ ${#failed[@]} -eq 0 ] || die "these lines of tsvmm.config did not take effect: ${failed[*]}"

jobs=$(nproc)
say "compiling with $jobs jobs (a few minutes)"
# One line of progress for every 200 files.
if ! make -j"$jobs" bzImage 2> "$build/errors.log" |
    awk '{ n++ } n % 200 == 0 { printf "guest kernel: %d files\n", n; fflush() }'; then
  tail -n 30 "$build/errors.log" >&2
  die "the kernel did not compile; see above"
fi
install -m 644 arch/x86/boot/bzImage "$out/.bzImage.new"
mv "$out/.bzImage.new" "$out/bzImage"
say "wrote $out/bzImage ($(stat -c %s "$out/bzImage") bytes)"
