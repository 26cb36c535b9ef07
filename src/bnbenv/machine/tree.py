"""Read files under a root, so that a captured tree can stand in for the machine; nothing here raises."""

# pathlib would double the time of a probe that touches some hundred files.
# ruff: noqa: PTH110, PTH113, PTH115, PTH118, PTH123, PTH208

from __future__ import annotations

import os

from bnbenv.dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The file system as seen from `root`; absolute POSIX paths are taken below it.

    Attributes:
        root: ``/`` for the machine itself.
    """

    root: str

    @property
    def real(self) -> bool:
        """Whether this is the machine itself and not a captured tree."""
        return self.root == os.sep or os.name == "nt"

    def path(self, name: str) -> str:
        """The place of `name` on this machine."""
        return name if self.real else os.path.join(self.root, name.lstrip("/"))

    def name(self, path: str) -> str:
        """The reverse of `path`: how the machine itself calls a place."""
        return path if self.real else "/" + os.path.relpath(path, self.root)

    def data(self, name: str, limit: int = 65536) -> bytes | None:
        """At most `limit` bytes of a file, or ``None`` if it cannot be read."""
        return self.part(name, 0, limit)

    def part(self, name: str, offset: int, size: int) -> bytes | None:
        """At most `size` bytes of a file from `offset` on, or ``None`` if it cannot be read."""
        try:
            with open(self.path(name), "rb") as file:
                if offset:  # a pipe has no other place than its start
                    file.seek(offset)
                return file.read(size)
        except (OSError, ValueError, OverflowError):
            return None

    def text(self, name: str, limit: int = 65536) -> str | None:
        """The start of a file as text, stripped of surrounding blanks and NUL bytes."""
        data = self.data(name, limit)
        return None if data is None else data.decode("utf-8", "replace").strip("\0 \t\r\n")

    def names(self, name: str) -> tuple[str, ...]:
        """The sorted names in a directory; none if it cannot be listed."""
        try:
            return tuple(sorted(os.listdir(self.path(name))))
        except (OSError, ValueError):
            return ()

    def exists(self, name: str) -> bool:
        """Whether there is a file, directory or device of that name."""
        return os.path.exists(self.path(name))

    def link(self, name: str) -> str | None:
        """The target of a symbolic link as written, or ``None``."""
        try:
            return os.readlink(self.path(name))
        except (OSError, ValueError):
            return None

    def usable(self, name: str) -> bool:
        """Whether this user may read and write a device file."""
        return os.access(self.path(name), os.R_OK | os.W_OK)

    def first(self, *names: str) -> str | None:
        """The first of the names that exists."""
        return next((name for name in names if self.exists(name)), None)

    def find_program(self, program: str, search_path: str | None) -> str | None:
        """Look a program up on a search path as given, without the root.

        Args:
            program: its name, with the suffix that the system wants.
            search_path: the value of ``PATH``.
        """
        for directory in (search_path or "").split(os.pathsep):
            candidate = os.path.join(directory, program)
            if directory and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
                return candidate
        return None
