"""Measures the floors that transformers hides in its code, against the rows of compat/floors.toml.

For each row on transformers the newest release within its range is read: the torch below which it switches
PyTorch off, the torch without which its modules do not import, the bitsandbytes that it asks for, and the
Python of its metadata. Rows on other packages are left as they are, and those that were found by importing.

    python scripts/refresh_floors.py [--write]
"""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from _refresh import COMPAT, open_index, run, settle, today
from bnbenv.errors import DataError
from bnbenv.matrix.dump import dump_toml
from bnbenv.matrix.load import load
from bnbenv.matrix.remote import RemoteFile
from bnbenv.matrix.rows import Provenance
from bnbenv.matrix.wheel import Wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pypi_simple import DistributionPackage

    from bnbenv.matrix.rows import Floor

PATH = COMPAT / "floors.toml"
_TORCH = re.compile(r"PyTorch >= ?(\d+\.\d+(?:\.\d+)?) is required")
_BITSANDBYTES = re.compile(r"BITSANDBYTES_MIN_VERSION\s*=\s*[\"'](\d+\.\d+\.\d+)[\"']")
# What a module uses at import, the torch that brought it, and what shows that an older one will do.
_USED = (
    (
        "transformers/utils/generic.py",
        re.compile(r"\bregister_pytree_node\("), "2.2", "_register_pytree_node(",
    ),
    ("transformers/integrations/flex_attention.py", re.compile(r"(?m)^ *@torch\.compiler\."), "2.1", None),
)  # fmt: skip
_ASKS = "transformers/utils/import_utils.py"
_FILES = (_ASKS, *(name for name, *_ in _USED))


def floors_in(files: Mapping[str, str], requires_python: str | None) -> dict[str, str]:
    """The floors that a release's source and metadata tell.

    Args:
        files: path within the wheel → text, of `_FILES` those that it has.
    """
    found = {}
    source = files.get(_ASKS, "")
    torch = [match[1]] if (match := _TORCH.search(source)) else []
    for name, use, release, without in _USED:
        text = files.get(name, "")
        if use.search(text) and not (without and without in text):
            torch.append(release)
    if torch:
        found["torch"] = f">={max(torch, key=Version)}"
    if match := _BITSANDBYTES.search(source):
        found["bitsandbytes"] = f">={match[1]}"
    if requires_python and (match := re.search(r">=\s*(\d+\.\d+)", requires_python)):
        found["python"] = f">={match[1]}"
    return found


def newest_within(packages: Sequence[DistributionPackage], versions: str) -> DistributionPackage:
    """The newest wheel of a range.

    Raises:
        DataError: there is none.
    """
    wanted = SpecifierSet(versions)
    found = [p for p in packages if p.package_type == "wheel" and p.version and p.version in wanted]
    if not found:
        raise DataError(f"{PATH.name}: transformers {versions}: the index lists no such release")
    return max(found, key=lambda package: Version(package.version or "0"))


def rows_from(
    floors: Sequence[Floor], measure: Callable[[Floor], tuple[str, Mapping[str, str]]]
) -> list[Floor]:
    """The rows to write; `measure` gives a row's source and the floors found there.

    Raises:
        DataError: a release no longer tells a floor that the row holds and this script can measure.
    """
    rows = []
    for floor in floors:
        if floor.package != "transformers" or floor.provenance.source.startswith("imported:"):
            rows.append(floor)
            continue
        source, found = measure(floor)
        if lost := {"torch", "python"} & set(floor.needs) - set(found):
            raise DataError(f"{PATH.name}: {source} tells no floor on {', '.join(sorted(lost))}")
        needs = {name: found.get(name, held) for name, held in floor.needs.items()}
        kept = floor.provenance
        if needs != dict(floor.needs) or kept.source != source:
            kept = Provenance(how="measured", source=source, checked=today())
        rows.append(floor._replace(needs=needs, provenance=kept))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the file")
    options = parser.parse_args()
    index, session = open_index()
    packages = index.get_project_page("transformers").packages

    def measure(floor: Floor) -> tuple[str, Mapping[str, str]]:
        package = newest_within(packages, floor.versions)
        source = f"{package.filename} sha256:{package.digests['sha256']}"
        if floor.provenance.source == source:
            return source, floor.needs  # read before
        wheel = Wheel(RemoteFile(session, package.url, name=package.filename, size=package.size))
        files = {it: wheel.read(it).decode("utf-8", errors="replace") for it in _FILES if it in wheel.names}
        found = floors_in(files, wheel.metadata().get("Requires-Python"))
        print(f"{package.filename}: {found}", file=sys.stderr)
        return source, found

    floors = load("floors", directory=COMPAT).floors
    rows = rows_from(floors, measure)
    text = PATH.read_text(encoding="utf-8")
    changed = rows != list(floors)
    revision = today().replace("-", ".") if changed else text.split('revision = "')[1][:10]
    new = dump_toml(PATH.name, {"floors": rows}, revision=revision, text=text)
    return settle(PATH, new, write=options.write)


if __name__ == "__main__":
    run(main)
