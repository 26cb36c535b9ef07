"""Runs a script of the self-test with the byte code of sources that were compiled before.

A program of its own, on the standard library alone, run by the environment's interpreter (3.9 or newer)::

    python -I -B launcher.py STORE SCRIPT ARGUMENTS…

Importing bitsandbytes brings two thousand modules, and ``-B`` would compile every one of them at every start.
The compiled form of a source stands in STORE under the hash of that source: the source is read each time, so
no byte code can stand for a file that was changed, and nothing is written into the environment. Byte code
that the environment has beside its sources is not read, which could be older than they. Where several users
share STORE, each runs what they wrote themselves, and that only while nobody else may write it.
"""

from __future__ import annotations

import _imp  # the interpreter's own hand that corrects the file name in compiled code
import contextlib
import hashlib
import importlib.machinery
import importlib.util
import marshal
import os
import runpy
import sys
from types import CodeType

DIGEST = 32  # bytes of a sha256
USER = os.geteuid() if hasattr(os, "geteuid") else 0


class StoredLoader(importlib.machinery.SourceFileLoader):
    """Loads a source file, and compiles it only where the store does not know it."""

    store = ""

    def get_code(self, fullname: str) -> CodeType | None:
        """The module's code, from the store or compiled now."""
        path = self.get_filename(fullname)
        source = self.get_data(path)
        kind = importlib.util.MAGIC_NUMBER + bytes([sys.flags.optimize]) + str(USER).encode()
        entry = os.path.join(self.store, hashlib.sha256(kind + source).hexdigest())  # noqa: PTH118 - two thousand times
        code = read(entry)
        if code is not None:
            _imp._fix_co_filename(code, path)  # type: ignore[attr-defined]  # noqa: SLF001 - as importlib does
            return code
        code = self.source_to_code(source, path)
        write(entry, code)
        return code


def read(entry: str) -> CodeType | None:
    """The code that stands there; ``None`` where there is none, or its bytes are damaged."""
    with contextlib.suppress(OSError):
        with open(entry, "rb") as file:  # noqa: PTH123 - two thousand times
            if not is_own(file.fileno()):
                return None
            held = file.read()
        if hashlib.sha256(held[DIGEST:]).digest() == held[:DIGEST]:
            os.utime(entry)  # the store forgets what was long not used
            code = marshal.loads(held[DIGEST:])  # noqa: S302 - written by this program, in the user's own cache
            return code if isinstance(code, CodeType) else None
    return None


def is_own(descriptor: int) -> bool:
    """Whether this user wrote the file, and no other may write it."""
    status = os.fstat(descriptor)
    return sys.platform == "win32" or (status.st_uid == USER and not status.st_mode & 0o022)


def write(entry: str, code: CodeType) -> None:
    """Keep the code, whole or not at all; a store that cannot be written costs time and nothing else."""
    body = marshal.dumps(code)
    beside = f"{entry}.{os.getpid()}"
    with contextlib.suppress(OSError):
        # Exclusive: a link that another user put under that name would lead into a file of ours.
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - two thousand times
            file.write(hashlib.sha256(body).digest() + body)
        os.replace(beside, entry)  # noqa: PTH105 - two thousand times


def use(store: str) -> None:
    """Import sources through the store from now on."""
    StoredLoader.store = store
    finder = importlib.machinery.FileFinder.path_hook(
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (StoredLoader, importlib.machinery.SOURCE_SUFFIXES),
        (importlib.machinery.SourcelessFileLoader, importlib.machinery.BYTECODE_SUFFIXES),
    )
    sys.path_hooks.insert(0, finder)
    sys.path_importer_cache.clear()


def main() -> None:
    """Run the script that the command line names, as ``python SCRIPT ARGUMENTS…`` would."""
    store, script = sys.argv[1:3]
    use(store)
    sys.argv = sys.argv[2:]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
