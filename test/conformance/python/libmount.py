"""What crun's test suite uses of util-linux's Python binding of libmount, which Debian does not package: by ctypes, of the same library."""

import ctypes

_library = ctypes.CDLL("libmount.so.1")
_BACKWARD = 1


def _function(name, result, *arguments):
    function = getattr(_library, name)
    function.restype = result
    function.argtypes = arguments
    return function


_new_table = _function("mnt_new_table_from_file", ctypes.c_void_p, ctypes.c_char_p)
_find_target = _function("mnt_table_find_target", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
_vfs_options = _function("mnt_fs_get_vfs_options", ctypes.c_char_p, ctypes.c_void_p)
_fs_options = _function("mnt_fs_get_fs_options", ctypes.c_char_p, ctypes.c_void_p)


class _Mount:
    def __init__(self, pointer):
        self.vfs_options = (_vfs_options(pointer) or b"").decode()
        self.fs_options = (_fs_options(pointer) or b"").decode()


class Table:
    """The mounts in a file of mountinfo's form."""

    def __init__(self, path):
        self._table = _new_table(path.encode())
        if not self._table:
            raise OSError("libmount cannot read %s" % path)

    def find_target(self, path):
        """The last mount at a path."""
        found = _find_target(self._table, path.encode(), _BACKWARD)
        if not found:
            raise KeyError("nothing is mounted at %s" % path)
        return _Mount(found)
