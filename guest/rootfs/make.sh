#!/bin/bash
# Makes a small root file system from Debian's busybox-static, for the demo and the tests.
#
#   make.sh DIR
#
# DIR is made; one that exists must be empty or made by this script.
set -euo pipefail

die() { echo "guest/rootfs/make.sh: $*" >&2; exit 1; }
[ $# -eq 1 ] || die "usage: make.sh DIR"
busybox=$(command -v busybox) || die "busybox is missing: install busybox-static"
if readelf -d "$busybox" 2>/dev/null | grep -q NEEDED; then
  die "$busybox needs libraries: install busybox-static"
fi
dir=$1
if [ -d "$dir" ] && [ -n "$(ls -A "$dir")" ] && [ ! -x "$dir/bin/busybox" ]; then
  die "$dir is not empty"
fi

mkdir -p "$dir"/{bin,dev,etc,home,mnt,proc,root,run,sbin,sys,tmp,usr/bin,usr/sbin,var/tmp}
chmod 0755 "$dir"
chmod 0700 "$dir/root"
chmod 1777 "$dir/tmp" "$dir/var/tmp"
install -m 0755 "$busybox" "$dir/bin/busybox"
# busybox says which folder each applet belongs in. One process for them all: there are hundreds.
"$busybox" --list-full | python3 -c '
import os, sys
for applet in sys.stdin.read().split():
    path = os.path.join(sys.argv[1], applet)
    if applet != "bin/busybox" and not applet.startswith("usr/share") and not os.path.lexists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink("/bin/busybox", path)
' "$dir"

cat > "$dir/etc/passwd" <<'END'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
user:x:1000:1000:user:/home:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
END
cat > "$dir/etc/group" <<'END'
root:x:0:
daemon:x:1:
tty:x:5:
users:x:100:user
user:x:1000:
nogroup:x:65534:
END
printf '127.0.0.1 localhost\n::1 localhost\n' > "$dir/etc/hosts"
printf 'NAME="tsvmm demo"\nID=tsvmm-demo\n' > "$dir/etc/os-release"
: > "$dir/etc/resolv.conf"
