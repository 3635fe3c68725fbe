"""Function symbols of ELF files, read directly: in which function an address lies, and which a file defines."""

from __future__ import annotations

import bisect
import functools
import mmap
import struct
from pathlib import Path

_SYMTAB, _DYNSYM, _FUNCTION = 2, 11, 2


class Symbols:
    """Functions of one ELF64 file by address. Empty for a file that is not ELF64 or has no symbols."""

    def __init__(self, path: Path) -> None:
        self.addresses: list[int] = []
        self.names: list[tuple[int, int]] = []
        self._segments: list[tuple[int, int, int]] = []
        self._data: mmap.mmap | bytes = b""
        try:
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._read()
        except (OSError, ValueError, struct.error, IndexError):
            return

    def _read(self) -> None:
        data = self._data
        if data[:5] != b"\x7fELF\x02":
            return
        phoff, shoff = struct.unpack_from("<QQ", data, 32)
        phentsize, phnum, shentsize, shnum = struct.unpack_from("<HHHH", data, 54)
        for i in range(phnum):
            kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", data, phoff + i * phentsize)
            if kind == 1:
                self._segments.append((offset, offset + size, address))
        sections = [struct.unpack_from("<IIQQQQIIQQ", data, shoff + i * shentsize) for i in range(shnum)]
        found: dict[int, tuple[int, int]] = {}
        for section in sections:
            if section[1] not in (_SYMTAB, _DYNSYM):
                continue
            strings = sections[section[6]][4]
            table = data[section[4] : section[4] + section[5]]
            for name, info, _, index, value, _ in struct.iter_unpack("<IBBHQQ", table):
                if info & 15 == _FUNCTION and index and value:
                    found[value] = (strings, name)
        self.addresses = sorted(found)
        self.names = [found[address] for address in self.addresses]

    def at(self, file_offset: int) -> str:
        """Mangled name of the function that holds a byte of the file; empty where none is known."""
        for start, end, address in self._segments:
            if start <= file_offset < end:
                i = bisect.bisect_right(self.addresses, file_offset - start + address) - 1
                return self._name(i) if i >= 0 else ""
        return ""

    def functions(self) -> set[str]:
        """Mangled names of all functions that the file defines."""
        return {self._name(i) for i in range(len(self.addresses))}

    def strings_with(self, part: str) -> set[str]:
        """What stands between two zero bytes anywhere in the file and holds this part: names of variables, too."""
        data, found, end = self._data, set(), 0
        while (at := data.find(part.encode(), end)) >= 0:
            start, end = data.rfind(b"\0", end, at) + 1 or end, data.find(b"\0", at)
            end = end if end >= 0 else len(data)
            found.add(bytes(data[start:end]).decode(errors="replace"))
        return found

    def _name(self, i: int) -> str:
        strings, name = self.names[i]
        end = self._data.find(b"\0", strings + name)
        return bytes(self._data[strings + name : end]).decode(errors="replace")


@functools.lru_cache(maxsize=16)
def symbols_of(path: str, _mtime: float) -> Symbols:
    """Symbols of a file, kept; `_mtime` tells versions of it apart."""
    return Symbols(Path(path))


def function_at(path: str, file_offset: int) -> str:
    """Mangled name of the function at an offset of a mapped file; empty where it is not known."""
    try:
        return symbols_of(path, Path(path).stat().st_mtime).at(file_offset)
    except OSError:
        return ""
