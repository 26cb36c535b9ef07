"""Requirements files as lines that mean the same anywhere: includes spelled out, paths absolute.

The lines are stored with the environment, so that it can be solved again when the files are gone. What a line
means is for uv to say; `pip_api` is asked only to name the file and line of one that cannot be read.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.errors import UsageError
from bnbenv.texts import encoding_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_INCLUDE = re.compile(r"(?:-r|--requirement)(?:\s+|=|(?<=-r))(.+)")
_CONSTRAINT = re.compile(r"(?:-c|--constraint)(?:\s+|=|(?<=-c))(.+)")
_WITH_PATH = re.compile(r"(-e|--editable|-f|--find-links)(?:\s+|=)(.+)")
_COMMENT = re.compile(r"(^|\s)#.*$")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementLines:
    """What requirements files say, in order."""

    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()


def read_requirement_files(files: Iterable[Path]) -> RequirementLines:
    """Read files and what they include; paths in them count from the file that names them, as for pip.

    Raises:
        UsageError: a file is missing or is no text, includes itself, or has a line that cannot be read.
    """
    requirements: list[str] = []
    constraints: list[str] = []
    for file in files:
        _read(file.absolute(), requirements, constraints, above=())
    return RequirementLines(requirements=tuple(requirements), constraints=tuple(constraints))


def _read(file: Path, into: list[str], constraints: list[str], *, above: tuple[Path, ...]) -> None:
    if file in above:
        raise UsageError(f"the requirements file `{file}` includes itself", code="bad-request")
    try:
        written = file.read_bytes()
        text = written.decode(encoding_of(written))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        named = f", which `{above[-1]}` names," if above else ""
        raise UsageError(
            f"the requirements file `{file}`{named} cannot be read: {why}",
            hint="name a text file with one requirement a line",
            code="bad-request",
        ) from error
    plain: dict[int, str] = {}
    for number, line in _lines(text):
        if found := _INCLUDE.fullmatch(line):
            _read(_beside(file, found[1]), into, constraints, above=(*above, file))
        elif found := _CONSTRAINT.fullmatch(line):
            _read(_beside(file, found[1]), constraints, constraints, above=(*above, file))
        elif found := _WITH_PATH.fullmatch(line):
            into.append(f"{found[1]} {_absolute(file, found[2])}")
        elif line.startswith("-"):
            into.append(line)
        elif line.startswith((".", "/", "~", "$")) or _ADDRESS.match(line) or _stands(file.parent / line):
            into.append(_absolute(file, line))
        else:
            plain[number] = line
            into.append(line)
    if complaints := _complaints(plain):
        number, why = complaints[0]
        more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
        raise UsageError(
            f"`{file}`, line {number}: `{plain[number]}` is no requirement: {why}{more}",
            hint="one requirement a line, such as `einops>=0.8`",
            code="bad-request",
        )


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The number of its first line and the text of each logical line that says something."""
    start, parts = 0, list[str]()
    for number, raw in enumerate([*text.splitlines(), ""], start=1):
        start = start if parts else number
        if raw.endswith("\\"):
            parts.append(raw[:-1])
            continue
        line = _COMMENT.sub("", " ".join([*parts, raw])).strip()
        parts = []
        if line:
            yield start, line


def _beside(file: Path, named: str) -> Path:
    if _ADDRESS.match(named):
        raise UsageError(
            f"`{file}` includes `{named}`, which is no file of this machine",
            hint="save it beside the requirements file and include that",
            code="bad-request",
        )
    return (file.parent / named.strip().strip("\"'")).absolute()


def _absolute(file: Path, text: str) -> str:
    """`text` with a relative path made absolute; an address stays, and so do extras and markers."""
    path = text.strip()
    if _ADDRESS.match(path) or path.startswith(("/", "~", "$")):
        return path
    import os

    return os.path.normpath(file.parent / path)


def _stands(path: Path) -> bool:
    """Whether it is there; a requirement with its hashes is longer than any name may be."""
    try:
        return path.exists()
    except OSError:
        return False


def _complaints(plain: dict[int, str]) -> list[tuple[int, str]]:
    """The lines that are no requirement, each with what pip says of it, or else why it cannot be read."""
    doubts = {number: why for number, line in plain.items() if (why := _doubt(line))}
    if not doubts:
        return []
    try:  # it starts pip when it is imported, and there may be none
        from pip_api import parse_requirements  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - whatever is wrong with pip, the doubt itself can be told
        return [*doubts.items()]
    with tempfile.TemporaryDirectory(prefix="bnbenv-") as scratch:
        for number in doubts:
            file = Path(scratch) / f"{number}.txt"
            file.write_text(_bare(plain[number]) + "\n", encoding="utf-8")
            try:
                # It joins words that stand apart and so takes some lines that neither pip nor uv would take.
                parse_requirements(file)
            except Exception as error:  # noqa: BLE001 - its vendored parser has errors of its own
                said = str(error).partition("\nTraceback ")[0]  # pip_api quotes one behind its own words
                doubts[number] = " ".join(said.replace(str(file), "the line").split())
    return [*doubts.items()]


def _bare(line: str) -> str:
    """A requirement without the options that may follow it, such as ``--hash``."""
    return line.split(" --", maxsplit=1)[0]


def _doubt(line: str) -> str | None:
    """Why a line may be no requirement; ``None`` where it is beyond doubt, and pip need not be started."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(_bare(line))
    except InvalidRequirement as error:
        return str(error).splitlines()[0]
    return None
