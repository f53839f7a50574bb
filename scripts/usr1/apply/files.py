"""
The files of an environment, reached by descriptors.

Environments belong to others than who works on them, root say, and may change meanwhile. So no link below
the environment's directory is followed, an open directory stays the one that it was, whatever takes its
name, and only regular files are read: to open a FIFO would wait for ever.
"""

import contextlib
import errno
import fcntl
import fnmatch
import os
import secrets
import stat
import struct
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Tuple

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

#: See ioctl_iflags(2): the flags of a file, and those two that no rename and no unlink gets past.
FS_IOC_GETFLAGS = 0x80086601
FIXED = 0x10 | 0x20

#: Signatures of a content: of another one they are wrong.
SIGNATURES = {"security.ima", "security.evm"}


class Before(NamedTuple):
    """What a file is, but for its name."""

    content: bytes
    status: os.stat_result
    attributes: Dict[str, bytes]  # Access control lists and SELinux's label among them


def same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether it is the same file, and nobody has written to it."""
    return all(getattr(one, name) == getattr(other, name) for name in ("st_dev", "st_ino", "st_size", "st_mtime_ns"))


class Tree:
    """A directory that the user named, and those below it, opened once each; every path is below it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: Dict[Path, int] = {}

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, *exception: object) -> None:
        for descriptor in self._open.values():
            with contextlib.suppress(OSError):  # It is closed anyway
                os.close(descriptor)

    def directory(self, path: Path) -> int:
        """Its descriptor."""
        if path not in self._open:
            if path == self.root:
                self._open[path] = os.open(path, DIRECTORY)
            else:
                self._open[path] = os.open(path.name, DIRECTORY | os.O_NOFOLLOW, dir_fd=self.directory(path.parent))
        return self._open[path]

    def names(self, directory: Path, pattern: str) -> List[Path]:
        """The files of such names, none if there is no directory."""
        try:
            # Opened anew: one that was read before has to be rewound, and if that fails nobody is told
            opened = os.open(".", DIRECTORY, dir_fd=self.directory(directory))
        except FileNotFoundError:
            return []
        try:
            names = os.listdir(opened)
        finally:
            os.close(opened)
        return sorted(directory / name for name in names if fnmatch.fnmatchcase(name, pattern))

    def status(self, path: Path) -> os.stat_result:
        return os.stat(path.name, dir_fd=self.directory(path.parent), follow_symlinks=False)

    def read(self, path: Path) -> Before:
        with open(self._opened(path, os.O_RDONLY), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "expected a regular file, found another kind", os.fspath(path))
            return Before(file.read(), status, _attributes(file.fileno()))

    def write(self, path: Path, before: Before, suffix: str) -> Tuple[Path, os.stat_result]:
        """A synced file beside path, to be renamed over it, that is all that another was; its times are now."""
        self._changeable(path)
        new = path.with_name(f".{path.name}.{secrets.token_hex(4)}{suffix}")
        descriptor = self._opened(new, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            with open(descriptor, "r+b") as file:
                file.write(before.content)
                os.fchown(descriptor, before.status.st_uid, before.status.st_gid)
                _set_attributes(descriptor, before.attributes)
                os.fchmod(descriptor, stat.S_IMODE(before.status.st_mode))
                file.flush()
                os.fsync(descriptor)
                file.seek(0)
                if file.read() != before.content:
                    raise OSError(errno.EIO, "what was read back is not what was written", os.fspath(new))
                status = os.fstat(descriptor)
        except BaseException:
            self.discard([new])
            raise
        return new, status

    def set_times(self, path: Path, status: os.stat_result) -> None:
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(path.name, ns=times, dir_fd=self.directory(path.parent), follow_symlinks=False)

    def rename(self, new: Path, path: Path) -> None:
        directory = self.directory(path.parent)
        os.rename(new.name, path.name, src_dir_fd=directory, dst_dir_fd=directory)

    def remove(self, path: Path) -> None:
        os.unlink(path.name, dir_fd=self.directory(path.parent))

    def discard(self, paths: Iterable[Path]) -> None:
        """Remove our own temporary files; the next run removes what this cannot."""
        for path in paths:
            with contextlib.suppress(OSError):
                self.remove(path)

    def sync(self, paths: Iterable[Path]) -> None:
        """Bring what became of the names of these files to disk."""
        for directory in sorted({path.parent for path in paths}):
            os.fsync(self.directory(directory))

    def _opened(self, path: Path, flags: int) -> int:
        return os.open(path.name, flags | FILE, 0o600, dir_fd=self.directory(path.parent))

    def _changeable(self, path: Path) -> None:
        """Raises OSError if a file could be made there, but neither renamed nor removed."""
        with open(self._opened(path, os.O_RDONLY), "rb") as file:
            if _fixed(file.fileno()) or _fixed(self.directory(path.parent)):
                raise OSError(errno.EPERM, "it or its directory is immutable or append-only", os.fspath(path))


def _fixed(descriptor: int) -> bool:
    flags = bytearray(struct.calcsize("l"))
    with contextlib.suppress(OSError):  # Not every file system has any
        fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, flags)
    return bool(struct.unpack("l", flags)[0] & FIXED)


def _attributes(descriptor: int) -> Dict[str, bytes]:
    if not hasattr(os, "listxattr"):  # As on macOS
        return {}
    try:
        return {name: os.getxattr(descriptor, name) for name in set(os.listxattr(descriptor)) - SIGNATURES}
    except OSError as error:
        if error.errno != errno.ENOTSUP:  # Not every file system has any
            raise
        return {}


def _set_attributes(descriptor: int, attributes: Dict[str, bytes]) -> None:
    # The directory may have given some to a new file, such as a default access control list
    given = _attributes(descriptor)
    for name in given.keys() - attributes.keys():
        os.removexattr(descriptor, name)
    for name, value in attributes.items() - given.items():
        os.setxattr(descriptor, name, value)
