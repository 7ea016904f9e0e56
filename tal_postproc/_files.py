"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal


def is_pipe(path: str | os.PathLike[str]) -> bool:
    """Is it there, and no regular file?  Asked of the path itself: what ``/dev/stdout`` leads to may have no name."""
    return os.path.exists(path) and not os.path.isfile(path)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a file that takes the name `path` when the block ends well, and leaves no trace when it does not.

    The text or bytes go to a temporary file in the same folder, which is synced and renamed; an older file under that
    name stays as it was until then.  A link is followed, and what is no regular file (a pipe, ``/dev/stdout``) is
    written to directly.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(f"{folder}/a.txt") as file:
    ...         _ = file.write("whole")
    ...     Path(folder, "a.txt").read_text()
    'whole'
    """
    text: dict[str, Any] = {} if mode == "wb" else {"encoding": "utf-8", "newline": "\n"}
    if is_pipe(path):
        with open(path, mode, **text) as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target.parent))
    # not mkstemp: its files are closed to other users whatever the umask says
    temporary = target.with_name(f".tal_postproc-{secrets.token_hex(8)}.tmp")
    file = open(temporary, mode.replace("w", "x"), **text)  # noqa: SIM115 (closed below, before the rename)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
