"""Compiles a request into a standard `pylock.toml` in which torch comes from its own index and no other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.errors import DataError, ExternalError, UsageError
from bnbenv.install.availability import collect
from bnbenv.install.compile_inputs import compile_arguments, name_of, write_inputs
from bnbenv.install.compiled import annotated_homes, complete_hashes, is_local, name_indexes, obvious_homes
from bnbenv.install.uv_files import address, uv_variables, uv_workspace, write_private
from bnbenv.torch_family import BUILT_AGAINST_TORCH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from bnbenv.install.sources import Index, Sources
    from bnbenv.install.uv import Uv
    from bnbenv.machine.target import Arch, Libc, OsName
    from bnbenv.matrix.rows import TorchBuild

# uv takes a Mac for an older one than any that bitsandbytes has wheels for.
_MACOS = {"MACOSX_DEPLOYMENT_TARGET": "14.0"}

# Answers of an index without which uv goes on.
_BLAMED = frozenset({"index-forbidden", "index-not-an-index"})

# The manylinux levels for which uv has a name; a newer glibc runs all that an older one does.
_MANYLINUX = (17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRequest:
    """What shall be locked.

    Attributes:
        python: the minor version, such as ``3.12``.
        requirements: of the profile and of ``--with``, PEP 508; anything else is left to uv to read.
        torch: the build, pinned to its index; ``None`` where a base brings it.
        interpreter: which Python uv asks about this machine; by default the one that runs bnbenv.
        platform: uv's name of another machine's platform, see `platform_name`.
        requirement_files: handed to uv as they are.
        constraints: PEP 508, limits on what is not asked for.
        provided: packages that a base brings, kept out of the lock.
        exclude_newer: a date or RFC 3339 time; by default what the user configured for uv.
        preferred: the text of a lock whose versions are kept where they fit.
        upgrade: packages that are not kept.
    """

    python: str
    requirements: tuple[str, ...]
    torch: TorchBuild | None = None
    interpreter: Path | None = None
    platform: str | None = None
    requirement_files: tuple[Path, ...] = ()
    constraints: tuple[str, ...] = ()
    provided: frozenset[str] = frozenset()
    exclude_newer: str | None = None
    preferred: str | None = None
    upgrade: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What the lock holds that its reader should know.

    Attributes:
        path: the lock.
        packages: normalised names, in the lock's order.
        local: packages whose files have addresses of this machine alone.
    """

    path: Path
    packages: tuple[str, ...]
    local: tuple[str, ...]


def compile_lock(
    uv: Uv,
    request: CompileRequest,
    sources: Sources,
    destination: Path,
    *,
    environ: Mapping[str, str],
    report: Callable[[str], None] | None = None,
) -> Compiled:
    """Resolve the request with uv and write the lock to `destination`, named as PEP 751 wants.

    Raises:
        ExternalError: uv found no set of versions, or an index failed (codes ``conflict``,
            ``package-unavailable``, ``index-forbidden``, ``index-unreachable``, ``offline``, …), or an
            index gives no hash for a file.
        UsageError: a requirement file is missing, or torch's index is not configured.
    """
    for file in request.requirement_files:
        if not file.is_file():
            raise UsageError(f"`--requirements` names {file}, which is no file", code="bad-request")
    index = sources.find(request.torch.index) if request.torch else None
    pinned = _pinned(request, index)
    variables = uv_variables(sources, environ)
    if request.platform is not None and request.platform.endswith("apple-darwin"):
        variables |= _MACOS
    with uv_workspace(sources) as directory:
        while True:
            write_inputs(directory, request, index, pinned)
            output = directory / "pylock.toml"
            if request.preferred is not None:
                # uv keeps the versions that it finds in the file that it writes.
                write_private(output, request.preferred)
            try:
                uv.run(
                    compile_arguments(directory, request, sources, output, pinned),
                    environ=environ,
                    cwd=Path.cwd(),
                    report=report,
                    extra=variables,
                )
            except ExternalError as problem:
                _blame_index(problem, sources, index, environ)
                raise
            lock = _load(output)
            missing = _stray_family(lock, pinned, index)
            if not missing:
                break
            # A source binds direct dependencies alone, so a companion that came along
            # by itself is made one and the request is compiled again.
            pinned = {**pinned, **dict.fromkeys(missing)}
        complete_hashes(lock, directory)
        homes = _homes(lock, sources, index if pinned else None, pinned)
        if homes is None:
            listing = directory / "annotated.txt"
            uv.run(
                compile_arguments(directory, request, sources, listing, pinned, annotated=True),
                environ=environ,
                cwd=Path.cwd(),
                extra=variables,
            )
            homes = annotated_homes(listing.read_text(encoding="utf-8"))
        name_indexes(lock, homes)
    import tomli_w

    write_private(destination, tomli_w.dumps(lock))
    destination.chmod(0o644)
    return Compiled(
        path=destination,
        packages=tuple(package["name"] for package in lock["packages"]),
        local=tuple(package["name"] for package in lock["packages"] if is_local(package)),
    )


def platform_name(*, os: OsName, arch: Arch, libc: Libc | None) -> str:
    """How uv calls a platform.

    Raises:
        UsageError: uv has no name for it, such as a glibc older than 2.17.
    """
    if os == "windows":
        return f"{arch}-pc-windows-msvc"
    if os == "macos":
        return f"{arch}-apple-darwin"
    if libc is None:
        return f"{arch}-manylinux_2_28"
    if libc.family == "musl":
        return f"{arch}-unknown-linux-musl"
    fitting = [level for level in _MANYLINUX if (2, level) <= tuple(libc.version)]
    if not fitting:
        raise UsageError(
            f"glibc {libc.version} is older than every manylinux platform in use", code="bad-target"
        )
    return f"{arch}-manylinux_2_{fitting[-1]}"


def _pinned(request: CompileRequest, index: Index | None) -> dict[str, str | None]:
    """Normalised name → requirement to add (``None``: one that stands in the request or needs no range)."""
    if request.torch is None or index is None:
        return {}
    pinned: dict[str, str | None] = {"torch": request.torch.pin}
    offered = _offered(index)
    if request.torch.triton:
        name = name_of(request.torch.triton)
        if name in offered:
            pinned[name] = request.torch.triton
    for requirement in request.requirements:
        name = name_of(requirement)
        if name in offered and name not in pinned:
            pinned[name] = None
    return pinned


def _offered(index: Index) -> frozenset[str]:
    """The companions that come from torch's index."""
    if index.role in {"explicit", "default"} and not index.flat:
        return frozenset(index.companions)
    if index.flat and index.directory is not None:
        files = [file.name for file in index.directory.iterdir()] if index.directory.is_dir() else []
        names = {name_of(file.split("-")[0]) for file in files if file.endswith(".whl")}
        return frozenset((*BUILT_AGAINST_TORCH, *index.companions)) & names
    return frozenset()


def _blame_index(
    problem: ExternalError, sources: Sources, index: Index | None, environ: Mapping[str, str]
) -> None:
    """Name the index that refuses access or is none, where uv goes on without it and misses the packages.

    Where all answer as indexes do, those that were asked are named.

    Raises:
        ExternalError: codes ``index-forbidden``, ``index-not-an-index``, ``package-unavailable``.
    """
    if problem.code not in {"package-unavailable", "conflict", "index-forbidden"} or sources.offline:
        return
    answers = collect(sources, [index.name] if index else [], environ=environ)
    refused = [answer.problem for answer in answers if answer.problem and answer.problem.code in _BLAMED]
    if refused:
        told = "\n".join(entry.message for entry in refused)
        raise ExternalError(
            f"{told}\n{problem.message}", code=refused[0].code, hint=refused[0].hint
        ) from problem
    if problem.code == "package-unavailable":
        asked = ", ".join(
            f"`{entry.name}` at {address(entry)}" for entry in sources.indexes if entry.role != "explicit"
        )
        # In the hint, which is for this machine: a message may go into a lock that others read.
        hint = "; ".join(filter(None, (problem.hint, f"asked were {asked}")))
        raise ExternalError(problem.message, code=problem.code, hint=hint) from problem


def _homes(
    lock: Mapping[str, Any], sources: Sources, index: Index | None, pinned: Mapping[str, str | None]
) -> dict[str, str] | None:
    """Package → address of its index, where that is clear without asking uv again."""
    general = [*sources.with_role("extra"), *sources.with_role("default")]
    return obvious_homes(
        lock,
        network=[address(entry) for entry in general if not entry.local],
        local=[entry.url for entry in general if entry.local and entry.url],
        flat=[entry.url for entry in sources.with_role("flat") if entry.url],
        pinned={name: address(index) for name in pinned} if index else {},
    )


def _stray_family(
    lock: Mapping[str, Any], pinned: Mapping[str, str | None], index: Index | None
) -> list[str]:
    if index is None:
        return []
    offered = _offered(index)
    return [
        package["name"]
        for package in lock["packages"]
        if package["name"] in offered and package["name"] not in pinned
    ]


def _load(path: Path) -> dict[str, Any]:
    from bnbenv.toml import TOMLDecodeError, loads

    try:
        lock = loads(path.read_text(encoding="utf-8"))
    except (OSError, TOMLDecodeError) as problem:
        raise DataError(f"uv wrote a lock that cannot be read: {problem}", code="lock-invalid") from problem
    lock.setdefault("packages", [])
    return lock
