"""Runs a command on a terminal of its own, for the tests.

    on-terminal.py ROWS COLUMNS COMMAND [ARG...]

What the terminal shows goes to standard output, and standard input's bytes are typed into it, except lines
"\x00resize ROWS COLUMNS", which change its size. Ends with the command's status, after a line on standard error that
says whether the terminal was left as it was found.
"""
import fcntl
import os
import pty
import select
import struct
import sys
import termios


def resize(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


master, slave = pty.openpty()
resize(master, int(sys.argv[1]), int(sys.argv[2]))
before = termios.tcgetattr(slave)
child = os.fork()
if child == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    os.closerange(3, 64)
    os.execvp(sys.argv[3], sys.argv[3:])

status = None
sources = [master, 0]
while True:
    readable, _, _ = select.select(sources, [], [], 0.1 if status is None else 0)
    if master in readable:
        os.write(1, os.read(master, 65536))
    if 0 in readable:
        typed = os.read(0, 65536)
        if not typed:
            sources.remove(0)
        while typed:
            command = typed.find(b"\0resize ")
            text = typed if command < 0 else typed[:command]
            if text:
                os.write(master, text)
            typed = typed[len(text):]
            if typed:
                line, _, typed = typed.partition(b"\n")
                resize(master, *map(int, line.split()[1:]))
    if status is None:
        pid, waited = os.waitpid(child, os.WNOHANG)
        if pid == child:
            status = os.waitstatus_to_exitcode(waited)
    elif not readable:
        break
same = termios.tcgetattr(slave) == before
print("terminal: " + ("as before" if same else "changed"), file=sys.stderr)
sys.exit(status if status >= 0 else 128 - status)
