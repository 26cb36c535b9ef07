"""Whether an environment's files are those that its packages brought: damage, lost metadata, leftovers."""

from __future__ import annotations

import csv
import os
import re
import shlex
import stat
import time
from typing import TYPE_CHECKING

from bnbenv.doctor.requirements import requirements_of
from bnbenv.doctor.stack import LIBRARY, WATCHED, native_names
from bnbenv.judge.rules.rule import finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from bnbenv.env.installed import Distribution, Installed
    from bnbenv.env.record import RecordFault
    from bnbenv.judge.stack import Finding

_SHOWN = 5
_RECORD_SOURCE = "the packages' RECORD"
_LARGEST_RECORD = 1 << 24  # bytes
_CONDAS_TORCH = re.compile(r"pytorch-(\d[^-]*)-[^-]+\.json")
_TORCH_METADATA = re.compile(r'/(torch-[^/"]+\.(?:dist|egg)-info)[/"]')


def check_files(
    installed: Installed, package: Path | None, *, made: float | None, deep: bool
) -> tuple[Finding, ...]:
    """Compare the files with RECORD: bitsandbytes by hash, the rest by size and time, or all by hash.

    Not hashed again is a bitsandbytes that nothing has touched since the environment was finished.

    Args:
        installed: the environment, without its base.
        package: the directory of the bitsandbytes that would be imported.
        made: when it was finished, of one of bnbenv's own; every file was compared by hash just before.
        deep: hash everything.
    """
    return (
        *_damaged(_compared(installed, made=made, deep=deep), installed),
        *_without_metadata(installed),
        *_twice(installed),
        *_over_conda(installed),
        *_foreign_libraries(installed),
        *_never_built(installed, package),
        *_half_removed(installed),
    )


def _compared(installed: Installed, *, made: float | None, deep: bool) -> tuple[RecordFault, ...]:
    from bnbenv.env.record import check_record, check_sizes

    if deep:
        return check_record(installed)
    if made is not None and _untouched(installed, "bitsandbytes", since=made):
        return check_sizes(installed, made=made)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=1) as pool:  # hashing lets go of the interpreter's lock
        hashed = pool.submit(check_record, installed, ["bitsandbytes"])
        return check_sizes(installed, leave_out=["bitsandbytes"], made=made) + hashed.result()


def _untouched(installed: Installed, name: str, *, since: float) -> bool:
    """Whether every file of RECORD can be read, and is the very one that was there at a time in the past.

    Whatever writes, replaces, renames or links a file sets the time of change of its inode, and no program
    sets that back. Windows keeps no such time, and a time to come is of a clock that was wrong; where in
    doubt, the answer is no.
    """
    found = installed.find(name)
    if os.name == "nt" or since > time.time() or found is None or not found.has_record:
        return False
    listed = _listed_paths(found.metadata / "RECORD")
    paths = [f"{found.location}{os.sep}{path}" for path in listed if not path.endswith(".pyc")]
    try:
        status = [os.lstat(path) for path in paths]
    except OSError:
        return False
    same = all(one.st_ctime < since and stat.S_ISREG(one.st_mode) for one in status)
    return bool(paths) and same and all(os.access(path, os.R_OK) for path in paths)


def _damaged(faults: Iterable[RecordFault], installed: Installed) -> Iterator[Finding]:
    by_package: dict[str, list[RecordFault]] = {}
    for fault in faults:
        by_package.setdefault(fault.package, []).append(fault)
    for package, own in by_package.items():
        about = [fault for fault in own if not fault.path]
        yield from (_about_record(fault) for fault in about)
        files = sorted((fault for fault in own if fault.path), key=lambda fault: not fault.native)
        if owner := _installed_over(files, installed):
            yield _replaced(package, owner, files, installed)
        elif files:
            first, more = files[0], len(files) - 1
            what = {"missing": "is missing", "unreadable": "cannot be read"}.get(
                first.kind, f"is {first.kind}"
            )
            yield finding(
                "file-damaged",
                "error",
                package,
                f"`{first.path}` of {package} {what}" + (f", and {more} more of its files" if more else ""),
                *(f"{fault.path}: {fault.kind}, {fault.detail}" for fault in files[:_SHOWN]),
                *((f"and {len(files) - _SHOWN} more",) if len(files) > _SHOWN else ()),
                remedy=f"Reinstall {package}, and refresh it in the installer's cache.",
                source=_RECORD_SOURCE,
            )


def _installed_over(files: Iterable[RecordFault], installed: Installed) -> Distribution | None:
    """The other package whose files these are, every one of them, by its RECORD and their sizes.

    `nvidia-nccl-cu12` and `nvidia-nccl-cu13` bring one file, as do `opencv-python` and its headless sister:
    the one that came last wins, and uninstalling the other takes the file away.
    """
    sizes: dict[str, int] = {}
    package = ""
    for fault in files:
        package = fault.package
        copy = installed.find(package)
        if fault.kind not in {"altered", "truncated"} or copy is None:
            return None
        try:
            sizes[fault.path] = (copy.location / fault.path).stat().st_size
        except OSError:
            return None
    if not sizes:
        return None
    for other in installed.distributions:
        if other.name == package or not other.has_record:
            continue
        listed = dict(_listed_sizes(other.metadata / "RECORD", sizes))
        if listed == sizes:
            return other
    return None


def _listed_sizes(record: Path, paths: Collection[str]) -> Iterator[tuple[str, int]]:
    for row in _rows(record):
        if len(row) == 3 and row[0] in paths and row[2].isdecimal():
            yield row[0], int(row[2])


def _replaced(
    package: str, owner: Distribution, files: Sequence[RecordFault], installed: Installed
) -> Finding:
    needed = package in WATCHED or package in _needed(installed)
    return finding(
        "duplicate-package",
        ("error" if package in WATCHED else "warning") if needed else "info",
        package,
        f"{owner.name} {owner.version} was installed over {package}, whose files are the other's now",
        *(fault.path for fault in files[:_SHOWN]),
        *((f"and {len(files) - _SHOWN} more",) if len(files) > _SHOWN else ()),
        "torch and bitsandbytes need it as it was" if needed else "nothing that torch and bitsandbytes need",
        remedy=f"Remove {owner.name}, then install {package} again."
        if needed
        else f"Remove {package}, then install {owner.name} again: removing takes away what both brought.",
        source=_RECORD_SOURCE,
    )


def _needed(installed: Installed) -> frozenset[str]:
    """What the packages around bitsandbytes ask for."""
    from bnbenv.names import normalized

    found = [it for name in WATCHED if (it := installed.find(name)) is not None]
    return frozenset(
        normalized(name) for it in found for name, _ in requirements_of(it.metadata / "METADATA", installed)
    )


def _about_record(fault: RecordFault) -> Finding:
    missing = fault.kind == "no-record"
    return finding(
        "record-missing",
        "error" if fault.package in WATCHED else "warning",
        fault.package,
        f"RECORD of {fault.package} {'is missing' if missing else 'cannot be read'}",
        fault.detail,
        "installers cannot upgrade or remove the package, and its files cannot be checked",
        remedy=f"Remove the directories of {fault.package} and install it again.",
        source=_RECORD_SOURCE,
    )


def _without_metadata(installed: Installed) -> Iterator[Finding]:
    for name in WATCHED:
        if installed.find(name) is not None:
            continue
        site = next((it for it in installed.site_packages if (it / name / "__init__.py").is_file()), None)
        if site is None:
            continue
        owner = next(
            (it for it in installed.distributions if it.location == site and _brings(it, name)), None
        )
        if owner is not None and name != "bitsandbytes":
            continue  # the `triton` of `pytorch-triton-rocm` and of `triton-windows`
        yield finding(
            "record-missing",
            "error",
            name,
            f"{name} is there, and its metadata are not"
            if owner is None
            else f"{name} was brought by {owner.name} {owner.version}, a fork",
            f"`{site / name}` has no `{name}-*.dist-info` beside it",
            "installers believe that it is not installed, and another version would be put over it",
            remedy=f"Remove {owner.name if owner else 'the directory'} and install {name}.",
            source=_RECORD_SOURCE,
        )


def _brings(distribution: Distribution, name: str) -> bool:
    """Whether the package `name` is of a distribution that is called otherwise."""
    return f"{name}/__init__.py" in _listed_paths(distribution.metadata / "RECORD")


def _twice(installed: Installed) -> Iterator[Finding]:
    """Two metadata directories of one package beside each other; an editable one has a second elsewhere.

    Linux distributions give some packages a `.dist-info` and an `.egg-info`, both of the one version.
    """
    places: dict[tuple[Path, str], list[Distribution]] = {}
    for found in installed.distributions:
        places.setdefault((found.location, found.name), []).append(found)
    for (site, name), copies in places.items():
        eggs = [copy for copy in copies if copy.metadata.suffix == ".egg-info"]
        if eggs and len({copy.version for copy in copies}) == 1:
            continue
        names = [copy.metadata.name for copy in copies]
        if len(names) > 1:
            yield finding(
                "duplicate-package",
                "error" if name in WATCHED else "warning",
                name,
                f"{name} is installed twice in one directory",
                *(str(site / entry) for entry in names),
                "which version's files are imported is chance",
                remedy=f"Remove all of {name} and install it once.",
                source="the metadata directories",
            )


def _over_conda(installed: Installed) -> Iterator[Finding]:
    """A torch that pip or uv put in the place of conda's, which conda still takes for its own."""
    from bnbenv.env import durable

    torch, records = installed.find("torch"), installed.prefix / "conda-meta"
    if torch is None or len(installed.copies("torch")) > 1:
        return  # the two are told of already
    for entry in durable.names_in(records):
        match = _CONDAS_TORCH.fullmatch(entry)
        brought = _TORCH_METADATA.findall(_text(records / entry)) if match else []
        if match is None or not brought or torch.metadata.name in brought:
            continue
        yield finding(
            "installer-replaced-torch",
            "warning",
            "torch",
            f"torch {torch.version} was put over conda's {match[1]}, which conda still counts as installed",
            f"{records / entry} lists `{brought[0]}`",
            f"`{torch.metadata}` is there",
            "when conda next changes or removes its pytorch, files of this torch go",
            remedy="Let conda forget its pytorch, and put back the files of this torch that go with it.",
            commands=(
                shlex.join(["conda", "remove", "--prefix", str(installed.prefix), "--force", "pytorch"]),
                shlex.join(["bnbenv", "repair", str(installed.prefix)]),
            ),
            source="conda's record of the package",
        )


def _foreign_libraries(installed: Installed) -> Iterator[Finding]:
    """Native libraries in bitsandbytes' directory that RECORD does not list: the loader takes them too."""
    own = installed.find("bitsandbytes")
    if own is None or own.editable or not own.has_record or own.installer == "conda":
        return
    listed = _listed_names(own.metadata / "RECORD")
    foreign = sorted(native_names(own.location / "bitsandbytes") - listed) if listed else []
    if foreign:
        yield finding(
            "stale-library",
            "error",
            "bitsandbytes",
            f"`{foreign[0]}` lies in bitsandbytes' directory and is none of {own.version}'s"
            + (f", nor are {len(foreign) - 1} more" if len(foreign) > 1 else ""),
            *(str(own.location / "bitsandbytes" / name) for name in foreign[:_SHOWN]),
            "the loader looks for a file by its name, and takes such a one with the code of another release",
            remedy="Remove the directories of bitsandbytes and install it again.",
            source=_RECORD_SOURCE,
        )


def _never_built(installed: Installed, package: Path | None) -> Iterator[Finding]:
    """A bitsandbytes that brought no native library at all: a source tree, or what was installed from one."""
    if package is None or native_names(package):
        return
    own = installed.find("bitsandbytes")
    if own is not None and own.has_record and not own.editable and _listed_libraries(own.metadata / "RECORD"):
        return  # they were there: the comparison with RECORD tells of it
    yield finding(
        "source-build-no-native-lib",
        "error",
        "bitsandbytes",
        "bitsandbytes was installed from source, and its native library was never built",
        f"`{package}` holds no `libbitsandbytes_*`",
        *((f"installed from {own.direct_url}",) if own is not None and own.direct_url else ()),
        remedy="Install the published wheel, or configure with `cmake -DCOMPUTE_BACKEND=cuda` and build it.",
        source="the files of the package",
    )


def _listed_libraries(record: Path) -> frozenset[str]:
    return frozenset(name for name in _listed_names(record) if LIBRARY.fullmatch(name))


def _listed_names(record: Path) -> frozenset[str]:
    paths = _listed_paths(record)
    return frozenset(path.rpartition("/")[2] for path in paths if path.startswith("bitsandbytes/"))


def _listed_paths(record: Path) -> tuple[str, ...]:
    return tuple(row[0].replace("\\", "/") for row in _rows(record) if row)


def _rows(record: Path) -> list[list[str]]:
    """Path, hash and size, as RECORD spells them; none where it cannot be read."""
    try:
        return list(csv.reader(_text(record).splitlines()))
    except csv.Error:
        return []


def _text(record: Path) -> str:
    """What a record of files says; nothing where it cannot be read."""
    try:
        if record.is_file() and record.stat().st_size <= _LARGEST_RECORD:
            return record.read_text(encoding="utf-8", errors="replace")
    except OSError:
        pass
    return ""


def is_half_removed(entry: str) -> bool:
    """Whether an entry of site-packages is what pip renamed one of the packages to."""
    tails = tuple(name[2:].replace("-", "_") for name in WATCHED)
    return entry.startswith("~") and entry.split("-", 1)[0].split(".", 1)[0].endswith(tails)


def _half_removed(installed: Installed) -> Iterator[Finding]:
    """What pip renames aside and leaves behind when it is killed: `~itsandbytes`, `~-tsandbytes`."""
    from bnbenv.env import durable

    for site in installed.site_packages:
        left = [name for name in durable.names_in(site) if is_half_removed(name)]
        if left:
            yield finding(
                "stale-library",
                "info",
                "site-packages",
                f"pip was interrupted here and left {', '.join(f'`{name}`' for name in left[:_SHOWN])}",
                f"in {site}; nothing imports them",
                remedy="Remove these directories.",
                source="pip renames what it removes",
            )
