"""Takes a console over, as conmon does, for the tests.

    console-socket.py SOCKET ROWS COLUMNS

Listens on SOCKET, prints "listening" on standard error, receives the master of one pseudo-terminal and gives it a size. What is written to
the terminal then goes to standard output, and standard input's bytes are typed into it, until it is gone.
"""
import fcntl
import os
import select
import socket
import struct
import sys
import termios

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listening", file=sys.stderr, flush=True)
connection, _ = listener.accept()
_, (master, *_), _, _ = socket.recv_fds(connection, 4096, 1)
fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", int(sys.argv[2]), int(sys.argv[3]), 0, 0))

sources = [master, 0]
while True:
    readable, _, _ = select.select(sources, [], [])
    if 0 in readable:
        typed = os.read(0, 65536)
        os.write(master, typed)
        if not typed:
            sources.remove(0)
    if master in readable:
        try:
            shown = os.read(master, 65536)
        except OSError:  # EIO: nobody has the other side
            break
        os.write(1, shown)
