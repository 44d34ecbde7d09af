#!/bin/bash
# Prints what the guest's initramfs consists of, for cpio.py:
#
#   files.sh AGENT STUB
#
# AGENT becomes /init, STUB (of stub-systemd.sh) libsystemd.so.0. crun comes from Debian's package, with the other
# libraries that it needs. The format is that of the kernel's gen_init_cpio: `dir NAME MODE UID GID`,
# `file NAME SOURCE MODE UID GID`, `slink NAME TARGET MODE UID GID`, `nod NAME MODE UID GID TYPE MAJOR MINOR`.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
die() { echo "guest/initramfs/files.sh: $*" >&2; exit 1; }
[ $# -eq 2 ] || die "usage: files.sh AGENT STUB"
[ -x "$1" ] || die "$1 is not a program"
crun=$(command -v crun) || die "crun is missing; guest/packages.txt lists the Debian packages"

echo "file /init $1 0755 0 0"

# The agent mounts on most of these.
for folder in dev etc lib lib/x86_64-linux-gnu lib64 proc run sys tmp usr usr/bin; do
  echo "dir /$folder 0755 0 0"
done
# The kernel opens the console before anything is mounted.
echo "nod /dev/console 0600 0 0 c 5 1"
echo "nod /dev/null 0666 0 0 c 1 3"

for file in passwd group hosts; do
  echo "file /etc/$file $here/etc/$file 0644 0 0"
done

echo "file /usr/bin/crun $crun 0755 0 0"
# With the stub in the place of libsystemd, and each symbol looked up, so that one that is missing shows here and
# not in a guest.
libraries=$(LD_LIBRARY_PATH=$(dirname "$2") ldd -r "$crun" 2>&1) || die "ldd cannot read $crun"
case $libraries in *'not found'* | *'undefined symbol'* | *'version '*) die "crun would not start: $libraries" ;; esac
# `name => path (address)` for a library, `path (address)` for the dynamic linker.
sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*ld-linux[^ ]*\) .*/\1/p' <<< "$libraries" | sort |
  while read -r library; do
    case $library in
      *ld-linux*) echo "file $library $(realpath "$library") 0755 0 0" ;;
      *) echo "file /lib/x86_64-linux-gnu/$(basename "$library") $(realpath "$library") 0644 0 0" ;;
    esac
  done
