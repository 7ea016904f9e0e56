"""Arrays from .npy and .npz files of strangers: sizes are compared before memory is taken, and nothing is unpickled."""

from __future__ import annotations

import io
import math
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from tokenize import TokenError
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .types import FormatError

MAX_MEMBERS = 1_000
MAX_DIRECTORY = 1 << 20  # bytes of the zip directory; 1,000 members need about 70 KiB
_DEFLATE_LIMIT = 1_100  # deflate cannot shrink data more than 1,032 times
_CHUNK = 1 << 22

Header = tuple[tuple[int, ...], bool, np.dtype[Any]]
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, struct.error)
# What NumPy raises for a head that is no Python literal of the right kind.
_UNREADABLE = (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError, OverflowError)


def read_header(file: IO[bytes], name: str) -> Header:
    """Shape, order and dtype from the head of an .npy stream; nothing of it is believed yet."""
    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):  # version 2 allows heads of 4 GiB, and only structures need it
            raise FormatError(f"version {version} of the .npy format")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except (*_BROKEN, *_UNREADABLE) as error:
        raise FormatError(f"{name}: broken .npy head: {error!s:.200}") from None
    if len(shape) > 8 or not all(0 <= length < 1 << 48 for length in shape):
        raise FormatError(f"{name}: shape {shape!s:.80} is not allowed")
    if dtype.fields is not None or dtype.subdtype is not None or dtype.kind not in "biufSUO" or dtype.itemsize == 0:
        raise FormatError(f"{name}: dtype {dtype!s:.80} is not allowed")
    return shape, bool(fortran), dtype


def require_size(header: Header, size: int, name: str) -> None:
    """The values are plain and take `size` bytes; nothing has been allocated for them yet."""
    shape, _, dtype = header
    if dtype.hasobject:
        raise FormatError(f"{name}: dtype object is not allowed here: such arrays are pickles")
    if math.prod(shape) * dtype.itemsize != size:
        raise FormatError(
            f"{name}: shape {shape} of {dtype} needs {math.prod(shape) * dtype.itemsize} bytes, found {size}"
        )


def read_values(file: IO[bytes], size: int, header: Header, name: str) -> NDArray[Any]:
    """The array behind a header; `size` is the number of bytes that follow it."""
    require_size(header, size, name)
    shape, fortran, dtype = header
    flat = np.empty(math.prod(shape), dtype)
    _fill(file, memoryview(flat.view(np.uint8)), name)  # type: ignore[arg-type]
    if file.read(1):  # also makes zipfile compare the checksum
        raise FormatError(f"{name}: more than the {size} bytes that were announced")
    if dtype.kind == "U" and (flat.view(f"{dtype.str[0]}u4") > sys.maxunicode).any():  # tolist would not survive it
        raise FormatError(f"{name}: text with characters that do not exist")
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


class _DirectoryGuard(io.FileIO):
    """A file that refuses to be read in large pieces while zipfile reads its directory, which it does in one piece."""

    guarded = True

    def read(self, size: int | None = -1, /) -> bytes:
        size = -1 if size is None else size
        if not self.guarded:
            return super().read(size)
        data = super().read(MAX_DIRECTORY + 1 if size < 0 else min(size, MAX_DIRECTORY + 1))
        if len(data) > MAX_DIRECTORY:
            raise FormatError(f"the zip directory is larger than {MAX_DIRECTORY} bytes")
        return data


class NpzReader:
    """The arrays of an .npz file by name, read one at a time when they are asked for."""

    def __init__(self, path: str | os.PathLike[str], max_bytes: int) -> None:
        self.path = os.fspath(path)
        self._file = _DirectoryGuard(self.path)
        try:
            self._zip = zipfile.ZipFile(self._file)
            self._file.guarded = False
            self._members = self._checked_members(max_bytes)
        except BaseException as error:
            self._file.close()
            if isinstance(error, (*_BROKEN, ValueError)):  # ValueError: names that are no text, our own errors
                raise FormatError(f"{self.path}: not a usable .npz file: {error!s:.300}") from None
            raise

    def _checked_members(self, max_bytes: int) -> dict[str, zipfile.ZipInfo]:
        infos = self._zip.infolist()
        size_on_disk = os.fstat(self._file.fileno()).st_size
        if len(infos) > MAX_MEMBERS:
            raise FormatError(f"{len(infos)} arrays, more than {MAX_MEMBERS}")
        members: dict[str, zipfile.ZipInfo] = {}
        total = 0
        for info in infos:
            name = info.filename.removesuffix(".npy")
            if name == info.filename or name in members:
                raise FormatError(f"member {info.filename!r:.80} is not an .npy file or stands twice")
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise FormatError(
                    f"member {info.filename!r:.80} is encrypted or compressed by another method than deflate"
                )
            if info.compress_size > size_on_disk or info.file_size > _DEFLATE_LIMIT * (info.compress_size + 1):
                raise FormatError(
                    f"member {info.filename!r:.80} announces {info.file_size} bytes, which cannot be in the file"
                )
            members[name] = info
            total += info.file_size
        if total > max_bytes:
            raise FormatError(f"{total} bytes when unpacked, more than `max_bytes` = {max_bytes}")
        return members

    def __enter__(self) -> NpzReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._zip.close()
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays, in the order of the file."""
        return tuple(self._members)

    def header(self, name: str) -> Header:
        """Shape, order and dtype of an array, without its values."""
        try:
            with self._zip.open(self._members[name]) as file:
                return read_header(file, f"{self.path}: array {name!r}")
        except _BROKEN as error:
            raise FormatError(f"{self.path}: array {name!r} is broken: {error!s:.200}") from None

    def read(self, name: str) -> NDArray[Any]:
        """One array; compared with what the directory announced before memory is taken."""
        info, what = self._members[name], f"{self.path}: array {name!r}"
        try:
            with self._zip.open(info) as file:
                header = read_header(file, what)
                return read_values(file, info.file_size - file.tell(), header, what)
        except _BROKEN as error:
            raise FormatError(f"{what} is broken: {error!s:.200}") from None

    def rows(self, name: str) -> Rows:
        """An array of at least one dimension, to be read in ranges of its rows."""
        return Rows(self._file, self._zip, self._members[name], f"{self.path}: array {name!r}")


class Rows:
    """Ranges of rows of one array in an open .npz file; what is stored is sought, what is deflated streams forward."""

    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str) -> None:
        self._file, self._zip, self._info, self._what = file, archive, info, what
        self._whole: NDArray[Any] | None = None
        self._stream: IO[bytes] | None = None  # of a deflated member ...
        self._at = (
            0  # ... and the byte of the values that it gives next, or up to which the checksum of a stored one is
        )
        try:
            with archive.open(info) as member:  # compares the member's own head with the directory
                self.shape, fortran, self.dtype = header = read_header(member, what)
                self._head = member.tell()
                size = info.file_size - self._head
                if fortran and len(self.shape) > 1:
                    self._whole = read_values(member, size, header, what)
                    return
            require_size(header, size, what)
            self._row = math.prod(self.shape[1:]) * self.dtype.itemsize
            if info.compress_type == zipfile.ZIP_STORED:
                if info.compress_size != info.file_size:
                    raise FormatError(f"{what} is stored in {info.compress_size} bytes, not {info.file_size}")
                file.seek(info.header_offset + 26)
                lengths = struct.unpack("<HH", file.read(4))  # of the name and of the extra field
                self._begin = info.header_offset + 30 + sum(lengths)
                file.seek(self._begin)
                self._crc = zlib.crc32(file.read(self._head))
                self._begin += self._head
        except _BROKEN as error:
            raise FormatError(f"{what} is broken: {error!s:.200}") from None

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` to `stop`, in an array of their own; an array read from end to end has the right checksum."""
        if self._whole is not None:
            return self._whole[start:stop]
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        target = memoryview(out.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        try:
            if self._info.compress_type == zipfile.ZIP_STORED:
                self._seek(target, start * self._row)
            else:
                self._forward(target, start * self._row)
        except _BROKEN as error:
            raise FormatError(f"{self._what} is broken: {error!s:.200}") from None
        return out

    def _seek(self, target: memoryview, start: int) -> None:
        self._file.seek(self._begin + start)
        _fill(self._file, target, self._what)
        if start == self._at:
            self._crc = zlib.crc32(target, self._crc)
            self._at += len(target)
            if self._head + self._at == self._info.file_size and self._crc != self._info.CRC:
                raise zipfile.BadZipFile("its checksum is another one")

    def _forward(self, target: memoryview, start: int) -> None:
        if self._stream is None or self._at > start:
            self._stream = self._zip.open(self._info)
            self._at = -self._head
        while self._at < start:
            skipped = len(self._stream.read(min(_CHUNK, start - self._at)))
            if not skipped:
                raise EOFError(f"it ends after {self._at} bytes")
            self._at += skipped
        _fill(self._stream, target, self._what)
        self._at += len(target)
        if self._head + self._at == self._info.file_size and self._stream.read(1):  # compares the checksum
            raise FormatError(f"{self._what}: more than the {self._at} bytes that were announced")


def _fill(file: IO[bytes], target: memoryview, name: str) -> None:
    """Read exactly as many bytes as `target` has."""
    done = 0
    while done < len(target):
        count = file.readinto(target[done : done + _CHUNK])  # type: ignore[attr-defined]
        if not count:
            raise FormatError(f"{name}: ends after {done} of {len(target)} bytes")
        done += count


class Stacked(NamedTuple):
    """An array that is written part by part, never held whole."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    parts: Iterable[NDArray[Any]]


def write_npz(file: IO[bytes], arrays: Mapping[str, NDArray[Any] | Stacked], *, compressed: bool) -> None:
    """Arrays as an .npz file, the same bytes for the same arrays (NumPy's own writer adds the time of day)."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
            with archive.open(info, "w", force_zip64=True) as member:
                if not isinstance(array, Stacked):
                    np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
                    continue
                dtype = array.dtype.newbyteorder("=")
                head = {
                    "descr": np.lib.format.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": array.shape,
                }
                np.lib.format.write_array_header_1_0(member, head)
                for part in array.parts:
                    member.write(np.ascontiguousarray(part, dtype).reshape(-1).view(np.uint8).data)
