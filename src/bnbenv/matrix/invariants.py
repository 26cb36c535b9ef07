"""What must hold within the files of the matrix and between their rows, and whether they are as shipped."""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.errors import DataError
from bnbenv.matrix.codec import CODECS
from bnbenv.matrix.dump import dump_json, dump_toml, sort_rows
from bnbenv.matrix.load import FILES, load, parse_document, place, read_rows
from bnbenv.matrix.news import why_broken
from bnbenv.matrix.published import cuda_of, published_rows
from bnbenv.units import CudaVersion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnbenv.matrix.matrix import Matrix

LARGEST = 3_000_000  # bytes of all files together
_TOOLKIT = re.compile(r"libbitsandbytes_(?:cuda|rocm)(\d+)")


def check_files(directory: Path) -> Iterator[str]:
    """Faults of single files: unreadable, not canonical, rows doubled, too much altogether."""
    for name in sorted(set(FILES.values())):
        path = place(directory, name)
        try:
            text = path.read_text(encoding="utf-8")
            document = parse_document(text, path)
            parts = {
                part: read_rows(part, document, path)
                for part, file_name in FILES.items()
                if file_name == name
            }
        except (OSError, DataError) as error:
            yield str(error)
            continue
        for part, rows in parts.items():
            seen: set[tuple[str, ...]] = set()
            for row in rows:
                data = CODECS[part].write(row)
                key = tuple(str(data[field]) for field in CODECS[part].key)
                if key in seen:
                    yield f"{name}: {part}: {' '.join(key)} stands twice"
                seen.add(key)
            if name.endswith(".json") and tuple(rows) != sort_rows(part, rows):
                yield f"{name}: rows are not in the order of their keys"
        if path.name == name and _canonical(name, parts, document["revision"], text) != text:
            yield f"{name}: is not in the form that the scripts write"
    total = sum(path.stat().st_size for path in directory.iterdir() if path.is_file())
    if total > LARGEST:
        yield f"all files together have {total} bytes, more than {LARGEST}"


def _canonical(name: str, parts: Mapping[str, tuple[Any, ...]], revision: str, text: str) -> str:
    if name.endswith(".json"):
        [(part, rows)] = parts.items()
        return dump_json(part, rows, revision=revision)
    return dump_toml(name, parts, revision=revision, text=text)


def check_rows(matrix: Matrix) -> Iterator[str]:
    """Contradictions between rows."""
    if malformed := list(_check_specifiers(matrix)):
        yield from malformed
        return  # the rest compares by them
    yield from _check_bitsandbytes(matrix)
    yield from _check_builds(matrix)
    yield from _check_published(matrix)
    yield from _check_drivers(matrix)
    yield from _check_profiles(matrix)


def _specifiers(matrix: Matrix) -> Iterator[tuple[str, str]]:
    for loader in matrix.loaders:
        yield f"loaders.toml: {loader.versions}", loader.versions
    for broken in matrix.broken:
        yield f"broken.toml: {broken.versions}", broken.versions
    for floor in matrix.floors:
        where = f"floors.toml: {floor.package} {floor.versions}"
        yield from ((where, text) for text in (floor.versions, *floor.needs.values()))
    for hazard in matrix.hazards:
        where = f"hazards.toml: {hazard.package}"
        yield from ((where, text) for text in (hazard.versions, *hazard.when.values()))
    for fault in matrix.known_faults:
        yield f"known_faults.toml: {fault.id}", fault.versions
    for profile in matrix.profiles:
        for package_set in profile.sets:
            where = f"profiles.toml: {profile.name} {package_set.name}"
            texts = (package_set.python, package_set.torch, package_set.cuda, *package_set.packages.values())
            yield from ((where, text) for text in texts)


def _check_specifiers(matrix: Matrix) -> Iterator[str]:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    for where, text in _specifiers(matrix):
        try:
            SpecifierSet(text)
        except InvalidSpecifier:  # noqa: PERF203 - each fault is told
            yield f"{where}: {text!r} is no specifier"


def _check_bitsandbytes(matrix: Matrix) -> Iterator[str]:  # noqa: C901 - one question after another
    from packaging.specifiers import SpecifierSet

    for wheel in matrix.bitsandbytes:
        where = f"bitsandbytes.json: {wheel.wheel}"
        if not re.fullmatch(r"[0-9a-f]{64}", wheel.sha256):
            yield f"{where}: its hash is no SHA-256"
        measured = wheel.provenance.how == "measured"
        if measured and wheel.provenance.source != f"{wheel.wheel} sha256:{wheel.sha256}":
            yield f"{where}: its source is another file"
        if not measured and wheel.provenance.confidence is None:
            yield f"{where}: a published row without a confidence"
        if not wheel.wheel.startswith(f"bitsandbytes-{wheel.version}-"):
            yield f"{where}: does not hold release {wheel.version}"
        rules = [
            rule
            for rule in matrix.loaders
            if SpecifierSet(rule.versions, prereleases=True).contains(wheel.version)
        ]
        if len(rules) != 1:
            yield f"{where}: {len(rules)} rules of loaders.toml apply to it, not one"
        if wheel.broken != why_broken(wheel, matrix.broken):
            yield f"{where}: `broken` is not what broken.toml says; run refresh_bitsandbytes.py"
        for library in wheel.libraries:
            here = f"{where}: {library.name}"
            if list(library.cubins) != sorted(set(library.cubins)):
                yield f"{here}: cubins are not ascending"
            if bool(library.ptx) != (library.ptx_linkage is not None):
                yield f"{here}: PTX without a linkage, or a linkage without PTX"
            if (library.backend == "cuda") != bool(library.cubins):
                yield f"{here}: a CUDA library without cubins, or another one with them"
            if (library.backend == "rocm") != bool(library.gfx):
                yield f"{here}: a ROCm library without targets, or another one with them"
            match = _TOOLKIT.match(library.name)
            if match and (library.toolkit or "").replace(".", "") != match[1]:
                yield f"{here}: toolkit {library.toolkit} is not in its name"


def _check_builds(matrix: Matrix) -> Iterator[str]:  # noqa: C901 - one question after another
    from packaging.version import Version

    indexes = {index.name for index in matrix.indexes}
    majors = {floor.major for floor in matrix.driver_floors}
    for build in matrix.torch:
        where = f"torch.json: {build.version} {build.build} on {build.index}, {build.os} {build.arch}"
        if build.index not in indexes:
            yield f"{where}: indexes.toml does not know this index"
        if not build.pythons or list(build.pythons) != sorted(build.pythons, key=Version):
            yield f"{where}: Pythons are missing or not ascending"
        if list(build.cubins) != sorted(set(build.cubins)):
            yield f"{where}: cubins are not ascending"
        if build.cuda:
            if build.cuda != cuda_of(build.build):
                yield f"{where}: CUDA {build.cuda} is not what the build is called"
            if build.cuda.major not in majors:
                yield f"{where}: drivers.toml has no floor for CUDA {build.cuda.major}"
            if not build.cubins:
                yield f"{where}: a CUDA build without cubins"
        elif build.cubins or build.ptx:
            yield f"{where}: GPU code in a build without CUDA"
        if build.index == "pypi" and build.provenance.how != "measured":
            yield f"{where}: PyPI's builds are measured"
        if build.provenance.how == "published" and build.provenance.confidence is None:
            yield f"{where}: a published row without a confidence"


def _check_published(matrix: Matrix) -> Iterator[str]:
    wheels = {row.wheel: row for row in matrix.bitsandbytes_published}
    held = {row.wheel: row for row in matrix.bitsandbytes if row.provenance.how == "published"}
    for wheel in sorted(wheels.keys() | held.keys()):
        if wheels.get(wheel) != held.get(wheel):
            yield (
                f"bitsandbytes.json: {wheel} is not what bitsandbytes_published.toml says; "
                "run refresh_bitsandbytes.py"
            )
    want = {(row.version, row.index, row.os, row.arch): row for row in published_rows(matrix.torch_published)}
    have = {
        (row.version, row.index, row.os, row.arch): row
        for row in matrix.torch
        if row.provenance.how == "published"
    }
    for key in sorted(
        want.keys() ^ have.keys() | {key for key in want.keys() & have.keys() if want[key] != have[key]}
    ):
        yield f"torch.json: {' '.join(key)} is not what torch_published.toml says; run refresh_torch.py"


def _check_drivers(matrix: Matrix) -> Iterator[str]:  # noqa: C901 - one question after another
    branches = matrix.driver_branches
    for older, newer in pairwise(branches):
        if not (older.branch < newer.branch and older.cuda < newer.cuda):
            yield f"drivers.toml: branch {newer.branch} reports no newer CUDA than {older.branch}"
    known = {row.branch: row.cuda for row in branches}
    for floor in matrix.driver_floors:
        cuda = known.get(floor.linux.branch)
        if cuda is None or cuda.major > floor.major:
            yield f"drivers.toml: the floor of CUDA {floor.major} is in no branch of that major or before"
    for toolkit in matrix.toolkits:
        if toolkit.linux is None:
            continue
        cuda = known.get(toolkit.linux.branch)
        if cuda != CudaVersion.parse(toolkit.release):
            branch = toolkit.linux.branch
            yield f"toolkits.toml: {toolkit.release} came with branch {branch}, which reports {cuda}"
    first = {row.capability: row for row in matrix.capabilities}
    for wheel in matrix.bitsandbytes:
        for library in wheel.libraries:
            for capability in library.cubins:
                row = first.get(capability)
                toolkit_version = CudaVersion.parse(library.toolkit or "")
                if row is None:
                    yield f"toolkits.toml: no row for {capability}, which {wheel.wheel} holds"
                elif toolkit_version < row.first or (row.last is not None and toolkit_version > row.last):
                    yield f"toolkits.toml: {capability} in {wheel.wheel}:{library.name}, outside its toolkits"


def _check_profiles(matrix: Matrix) -> Iterator[str]:
    from packaging.specifiers import SpecifierSet

    releases = {wheel.version for wheel in matrix.bitsandbytes if not wheel.broken}
    pypi = [row for row in matrix.torch if row.index == "pypi"]
    for profile in matrix.profiles:
        if not profile.imports and any("bitsandbytes" not in it.packages for it in profile.sets):
            yield f"profiles.toml: {profile.name}: nothing to test it by: neither bitsandbytes nor `imports`"
        for package_set in profile.sets:
            where = f"profiles.toml: {profile.name} {package_set.name}"
            wanted = package_set.packages.get("bitsandbytes")
            if wanted is not None and not any(version in SpecifierSet(wanted) for version in releases):
                yield f"{where}: no sound release of bitsandbytes within {wanted}"
            torch, python = SpecifierSet(package_set.torch), SpecifierSet(package_set.python)
            fits = (row for row in pypi if row.version in torch and any(p in python for p in row.pythons))
            if next(fits, None) is None:
                yield f"{where}: no torch on PyPI within its ranges"
    known = {profile.name for profile in matrix.profiles}
    for hazard in matrix.hazards:
        for name in {hazard.instead, hazard.successor} - {None, *known}:
            yield f"hazards.toml: {hazard.package}: there is no profile {name}"


def file_hashes(directory: Path) -> dict[str, str]:
    """The SHA-256 of every file of the matrix."""
    paths = [place(directory, name) for name in sorted(set(FILES.values()))]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}


def shipped_hashes(directory: Path) -> dict[str, str]:
    """What an installed bnbenv says the files there were; nothing for a checkout, where files change."""
    import base64
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        listed = [path for path in distribution("bnbenv").files or () if path.parent.name == "_compat"]
    except PackageNotFoundError:
        return {}
    return {
        path.name: base64.urlsafe_b64decode(path.hash.value + "==").hex()
        for path in listed
        if path.hash is not None
        and path.hash.mode == "sha256"
        and Path(str(path.locate())).parent.resolve() == directory.resolve()
    }


def check_hashes(found: Mapping[str, str], shipped: Mapping[str, str]) -> Iterator[str]:
    """Files that are not the ones that were shipped."""
    for name, digest in shipped.items():
        if found.get(name) != digest:
            yield f"{name}: is not the file that bnbenv shipped"


def check_added(matrix: Matrix) -> Iterator[str]:
    """Contradictions within the rows, those of this user included, that a release of bnbenv does not ship."""
    yield from _check_bitsandbytes(matrix)
    yield from _check_builds(matrix)


def check(directory: Path) -> list[str]:
    """All faults of a directory."""
    faults = list(check_files(directory))
    try:
        matrix = load(directory=directory)
    except DataError:
        return faults  # told above
    return [*faults, *check_rows(matrix)]
