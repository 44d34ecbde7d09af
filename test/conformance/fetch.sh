#!/bin/bash
# Fetches the source packages of runc and crun from Debian's archive and makes what their test suites want.
#
#   fetch.sh FOLDER
#
#   FOLDER/runc  runc's source, with recvtty, seccompagent and the tarballs of root file systems in their places
#   FOLDER/crun  crun's source, with tests/init
#   FOLDER/bin   goes before PATH: what the suites ask of Go, answered at once
#
# FOLDER appears whole or not at all; one that is there is left as it is. The system's apt configuration stays as it is: a
# private one adds the source packages of the archives that the system's own lists name.
set -euo pipefail

result=$1
[ ! -e "$result" ] || exit 0 # another was quicker
work=$result.work.$$
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"
cd "$work"

fetch() {
  mkdir -p apt/lists/partial apt/cache/archives/partial apt/parts
  local keys=/usr/share/keyrings/debian-archive-keyring.gpg
  # shellcheck disable=SC2016 # apt's own variables
  apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v keys="$keys" '$1 == "Debian" && $4 == "main" && $3 !~ /security/ { print "deb-src [signed-by=" keys "] " $2 " " $3 " " $4 }' |
    sort -u >apt/sources.list
  [ -s apt/sources.list ] || { echo "apt knows no archive of Debian: run apt-get update" >&2; exit 1; }
  cat >apt/apt.conf <<CONF
Dir::Etc::SourceList "$work/apt/sources.list";
Dir::Etc::SourceParts "$work/apt/parts";
Dir::State::Lists "$work/apt/lists";
Dir::Cache "$work/apt/cache";
APT::Sandbox::User "root";
CONF
  export APT_CONFIG=$work/apt/apt.conf
  apt-get update -q
  apt-get source -q --only-source runc crun
  unset APT_CONFIG
  ls -- *.dsc
  mv runc-[0-9]* runc
  mv crun-[0-9]* crun
  rm -rf apt -- *.tar.* *.dsc
}

# Debian's way to build Go: the libraries' sources are in /usr/share/gocode, nothing is downloaded.
helpers() {
  mkdir -p gopath/src/github.com/opencontainers
  ln -s "$work/runc" gopath/src/github.com/opencontainers/runc
  export GO111MODULE=off GOFLAGS='' GOPROXY=off GOPATH=$work/gopath:/usr/share/gocode GOCACHE=$work/gocache GOTOOLCHAIN=local
  local name
  for name in recvtty seccompagent; do
    (cd "gopath/src/github.com/opencontainers/runc/contrib/cmd/$name" &&
      CGO_ENABLED=$([ $name = recvtty ] && echo 0 || echo 1) /usr/bin/go build -tags seccomp -o $name .)
  done
  chmod -R u+w gopath gocache
  rm -rf gopath gocache
  # Each case of runc's suite asks for the architecture, which costs Go more than most cases.
  mkdir bin
  printf '#!/bin/sh\n[ "$*" = "env GOARCH" ] && echo amd64 || exec /usr/bin/go "$@"\n' >bin/go
  chmod +x bin/go

  touch crun/tests/config.h
  gcc -O1 -static -DHAVE_SECCOMP -I crun/tests -o crun/tests/init crun/tests/init.c -lseccomp
}

# Root file systems in the places of those that runc's suite would download: the packages of this machine.
images() {
  local data=runc/tests/integration/testdata busybox applet
  busybox=$(command -v busybox)
  mkdir -p box/{bin,dev,etc,home,root,tmp,usr/bin,usr/sbin,var/spool/mail,var/www}
  cp "$busybox" box/bin/busybox
  "$busybox" --list | grep -vx busybox | while read -r applet; do ln -f box/bin/busybox "box/bin/$applet"; done
  chmod 1777 box/tmp
  printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >box/etc/passwd
  printf 'root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n' >box/etc/group
  tar -C box --numeric-owner --owner=0 --group=0 -cf "$data/busybox-amd64.tar.xz" . # tar knows what it is by its content

  mkdir deb
  local package
  for package in base-files dash libc6 libc-bin grep libpcre2-8-0; do
    (mkdir download && cd download && apt-get download -q "$package" >/dev/null && dpkg-deb --fsys-tarfile ./*.deb) |
      tar -C deb --exclude './usr/share/*' --exclude gconv --exclude locale -xf -
    rm -rf download
  done
  # Since libc6's own layout is that of before the merge of /usr: as debootstrap does it.
  local folder
  for folder in bin sbin lib lib64; do
    mkdir -p "deb/usr/$folder"
    [ ! -d "deb/$folder" ] || cp -a "deb/$folder/." "deb/usr/$folder/"
    rm -rf "deb/${folder:?}"
    ln -s "usr/$folder" "deb/$folder"
  done
  ln -sf dash deb/usr/bin/sh
  mkdir -p deb/{dev,proc,sys,tmp}
  tar -C deb --numeric-owner --owner=0 --group=0 -cf "$data/debian-amd64.tar.xz" .
  rm -rf box deb
}

fetch
helpers
images
trap - EXIT
mv -T "$work" "$result"
