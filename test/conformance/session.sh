#!/bin/bash
# Runs files of a suite, one after the other. Each file's TAP comes after a line `@@ FILE` and before a line `@@ end STATUS`.
#
#   session.sh runc|crun FOLDER RUNTIME SECONDS [FILE PATTERN]...
#
# FOLDER is what fetch.sh made, SECONDS how long one case may take, PATTERN a regular expression that names cases of the file.
set -u
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
suite=$1 folder=$2 runtime=$3 seconds=$4
shift 4
export PYTHONDONTWRITEBYTECODE=1 PATH=$folder/bin:$PATH LC_ALL=C.UTF-8 HOME=${HOME:-/root} TERM=xterm

# A case of crun's wants a process ID of five digits, which a testbed that has just started does not have.
[ "$BASHPID" -ge 10000 ] || echo 20000 2>/dev/null >/proc/sys/kernel/ns_last_pid || true

# runc's suite looks for the freezer in a group that is not the root: systemd has some on every host.
[ -n "$(find /sys/fs/cgroup -mindepth 2 -name cgroup.freeze -print -quit)" ] || mkdir /sys/fs/cgroup/conformance

# Prints the TAP of a file. Once all its cases have been told, what a failed one has left on their terminal (its session) is ended: bats waits for it.
# Where bats has no limit of its own, a case that waits for the events of a container for too long is ended too.
until_told() {
  local line left=-1 session='' status
  while :; do
    IFS= read -r -t "$([ "$left" = 0 ] && echo 30 || echo $((seconds + 30)))" line
    status=$?
    if [ $status -eq 0 ]; then
      case $line in
        '@@ session '*) session=${line#@@ session }; continue ;;
        1..*) left=${line#1..} ;;
        'ok '* | 'not ok '*) left=$((left - 1)) ;;
      esac
      printf '%s\n' "$line"
    elif [ $status -gt 128 ] && [ -n "$session" ]; then
      if [ "$left" = 0 ]; then
        pkill -KILL -s "$session" -x recvtty
      elif [ -z "$limit" ]; then
        pkill -KILL -s "$session" -f '/state events '
      fi
    else
      [ -z "$line" ] || printf '%s\n' "$line"
      break
    fi
  done
}

while [ $# -ge 2 ]; do
  file=$1 pattern=$2
  shift 2
  echo "@@ $file"
  case $suite in
    runc)
      cd "$folder/runc/tests/integration" || exit
      # bats' own limit is a job in the background: a case that waits for all of its jobs would wait for that too.
      limit=$seconds
      ! grep -q '^[[:space:]]*wait\>[^$]*$' "$file" || limit=
      # bats and the cases want a controlling terminal; script(1) gives one.
      RUNC=$runtime BATS_TEST_TIMEOUT=$limit PATTERN=$pattern \
        script -qec 'echo "@@ session $$"; exec bats --tap --filter "$PATTERN" '"$file" /dev/null </dev/null 2>&1 |
        sed -u 's/\r$//' | until_told
      status=${PIPESTATUS[0]}
      ;;
    crun)
      cd "$folder/crun" || exit
      OCI_RUNTIME=$runtime INIT=$folder/crun/tests/init python3 "$here/python/crun-cases.py" "$seconds" "tests/$file" "$pattern" 2>&1 </dev/null
      status=$?
      ;;
  esac
  printf '\n@@ end %s\n' "$status"
done
