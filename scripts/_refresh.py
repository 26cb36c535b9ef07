"""What the refresh scripts share: the target in the checkout, the diff, and that only --write writes."""

from __future__ import annotations

import difflib
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.errors import BnbenvError
from bnbenv.matrix.codec import CODECS
from bnbenv.matrix.dump import dump_json, sort_rows
from bnbenv.matrix.load import parse_document, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import requests
    from pypi_simple import PyPISimple

CHECKOUT = Path(__file__).resolve().parents[1]
COMPAT = CHECKOUT / "compat"


def today() -> str:
    """The date of rows that are made now."""
    return date.today().isoformat()  # noqa: DTZ011 - the day where the work is done


def held_rows(part: str, path: Path) -> tuple[tuple[Any, ...], str]:
    """The rows of a JSON file and its revision; none if the file does not exist."""
    if not path.exists():
        return (), "0000.00.00"
    document = parse_document(path.read_text(encoding="utf-8"), path)
    return read_rows(part, document, path), str(document["revision"])


def settle(path: Path, new: str, *, write: bool) -> int:
    """Show what changes, write it if asked to, and give the exit code: 1 where something differs."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if new == old:
        print(f"{path.name}: unchanged")
        return 0
    name = f"compat/{path.name}"
    difference = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), name, f"{name} (new)", n=0
    )
    sys.stdout.writelines(difference)
    if not write:
        print(f"{path.name}: differs; --write writes it", file=sys.stderr)
        return 1
    scratch = path.with_suffix(path.suffix + ".new")
    scratch.write_text(new, encoding="utf-8", newline="\n")
    scratch.replace(path)
    print(f"{path.name}: written", file=sys.stderr)
    return 1


def settle_rows(part: str, path: Path, rows: Sequence[Any], *, write: bool) -> int:
    """`settle` for a script-made file; the revision moves only when a row does."""
    old, revision = held_rows(part, path)
    ordered = sort_rows(part, rows)
    if [CODECS[part].write(row) for row in ordered] != [CODECS[part].write(row) for row in old]:
        revision = today().replace("-", ".")
    return settle(path, dump_json(part, ordered, revision=revision), write=write)


def open_index() -> tuple[PyPISimple, requests.Session]:
    """A client of the package index: PyPI, or the index that PIP_INDEX_URL names."""
    import os

    import requests
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple

    session = requests.Session()
    endpoint = os.environ.get("PIP_INDEX_URL", PYPI_SIMPLE_ENDPOINT)
    return PyPISimple(endpoint, session=session), session


def run(main: Callable[[], int]) -> None:
    """Run a script; a failure the user can act on is a message, not a traceback."""
    try:
        sys.exit(main())
    except BnbenvError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
