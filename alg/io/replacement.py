"""A file replaced as a whole or not at all, and the old one kept beside it.

What is a symbolic link stays one. The new file belongs to whom the old one belonged to, and is as
secret; where there was none everybody may read it, whatever root's umask is: the gateway that runs
as a user of its own must.
"""

from __future__ import annotations

import os
import tempfile
from itertools import count
from pathlib import Path


class HasChanged(Exception):
    """The file is no longer what it was; the message is one sentence."""


def replace_file(path: Path, old: str | None, text: str) -> Path | None:
    """Writes a file; returns where the old one is kept, None where there was none.

    `old` is what it must still hold, None where it must not be there. Raises HasChanged, OSError.
    """
    path = path.resolve()
    _make_directory(path.parent)
    if old != (path.read_bytes().decode() if path.exists() else None):
        raise HasChanged(f"{path} has been changed by somebody else meanwhile")
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as new:
            new.write(text.encode())
            if old is None:
                os.fchmod(descriptor, 0o644)
            else:
                status = path.stat()
                os.fchown(descriptor, status.st_uid, status.st_gid)
                os.fchmod(descriptor, status.st_mode & 0o7777)
            new.flush()
            os.fsync(descriptor)
        backup = None if old is None else _keep(path)
        try:
            os.replace(name, path)
        except OSError:
            if backup:
                backup.unlink()
            raise
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return backup


def is_replaceable(path: Path) -> bool:
    """Tells whether this user may write it; a directory that is missing is made."""
    there = next(each for each in path.resolve().parents if os.path.exists(each))
    return os.access(there, os.W_OK | os.X_OK)


def _keep(path: Path) -> Path:
    """Returns a new name of a file, which takes none that is there already."""
    for number in count(1):
        backup = path.with_name(f"{path.name}.bak{number if number > 1 else ''}")
        try:
            os.link(path, backup)
        except FileExistsError:
            continue
        return backup
    raise AssertionError


def _make_directory(path: Path) -> None:
    if not path.exists():
        path.mkdir(parents=True)
        path.chmod(0o755)
