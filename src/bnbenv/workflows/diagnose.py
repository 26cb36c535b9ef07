"""Name the cause that a log, a traceback or an issue body shows, or say what it lacks."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bnbenv.doctor.diagnosis import PARTS, diagnose
from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.doctor.diagnosis import Diagnosis
    from bnbenv.matrix.matrix import Matrix

_CHUNK = 1 << 18


def load_rules() -> Matrix:
    """The parts of the matrix that a diagnosis and the judge read."""
    from bnbenv.matrix.load import load
    from bnbenv.workflows.choose import JUDGED

    return load(*dict.fromkeys((*JUDGED, *PARTS)))


def diagnose_file(name: str, matrix: Matrix) -> Diagnosis:
    """Diagnose a file, or standard input for ``-``, in bounded memory.

    Raises:
        UsageError: the file cannot be read.
    """
    with _opened(name) as stream:
        try:
            return diagnose(iter(lambda: stream.read(_CHUNK), b""), matrix)
        except OSError as error:
            raise _unreadable(name, error) from error


def diagnose_text(text: str, matrix: Matrix) -> Diagnosis:
    """Diagnose a text at hand."""
    return diagnose((text.encode("utf-8", "surrogatepass"),), matrix)


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = Path(name).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise _unreadable(name, error) from error
    with stream:
        yield stream


def _unreadable(name: str, error: OSError) -> UsageError:
    return UsageError(
        f"`{name}` cannot be read: {error.strerror or error}",
        hint="bnbenv diagnose LOG, or pipe the text in: bnbenv diagnose -",
    )
