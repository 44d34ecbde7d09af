#!/usr/bin/env python3
"""Writes a cpio archive ("newc", as the kernel unpacks it) from a list of files.

    cpio.py OUTPUT < LIST

The list's format is in files.sh. The same list and files give the same bytes: sorted names, inode numbers
in order, no times.
"""

import os
import sys

TYPES = {'dir': 0o040000, 'file': 0o100000, 'slink': 0o120000, 'c': 0o020000, 'b': 0o060000}


def header(name, inode, mode, links, uid, gid, size, major, minor):
    """One entry's header: thirteen fields of eight hexadecimal digits, the name, and padding to four bytes."""
    fields = (inode, mode, uid, gid, links, 0, size, 0, 0, major, minor, len(name) + 1, 0)
    data = b'070701' + b''.join(b'%08x' % field for field in fields) + name + b'\0'
    return data + b'\0' * (-len(data) % 4)


def entry(inode, words):
    """One entry of the archive from one line of the list."""
    kind, path = words[0], words[1]
    name = path.lstrip('/').encode()
    content = b''
    major = minor = 0
    if kind in ('file', 'slink'):
        source, mode, uid, gid = words[2:6]
        if kind == 'file':
            with open(source, 'rb') as file:
                content = file.read()
        else:
            content = source.encode()
        bits = TYPES[kind]
    elif kind == 'dir':
        mode, uid, gid = words[2:5]
        bits = TYPES[kind]
    elif kind == 'nod':
        mode, uid, gid, node, major, minor = words[2:8]
        bits = TYPES[node]
    else:
        raise ValueError(f'unknown kind "{kind}"')
    links = 2 if kind == 'dir' else 1
    data = header(name, inode, bits | int(mode, 8), links, int(uid), int(gid), len(content), int(major), int(minor))
    return data + content + b'\0' * (-len(content) % 4)


def main():
    if len(sys.argv) != 2:
        sys.exit('usage: cpio.py OUTPUT < LIST')
    lines = [line.split() for line in sys.stdin if line.strip() and not line.startswith('#')]
    lines.sort(key=lambda words: words[1])
    archive = bytearray()
    for number, words in enumerate(lines, 1):
        try:
            archive += entry(number, words)
        except (OSError, ValueError, KeyError, IndexError) as error:
            sys.exit(f'cpio.py: {" ".join(words)}: {error}')
    archive += header(b'TRAILER!!!', 0, 0, 1, 0, 0, 0, 0, 0)
    archive += b'\0' * (-len(archive) % 512)
    temporary = sys.argv[1] + '.new'
    with open(temporary, 'wb') as file:
        file.write(archive)
    os.replace(temporary, sys.argv[1])


if __name__ == '__main__':
    main()
