"""Asks the judge for thousands of simulated hosts and holds each answer against an oracle of its own.

The oracle reads the data files as plain JSON and TOML and imports nothing of the judge: it walks all
combinations in the documented order and takes the first that serves. For every host its best stack must be
the judge's; every "unsolvable" is confirmed by the same exhaustive walk. Every published stack must be
reached or passed, and those of other indexes be taken from there. For GPUs of AMD and Intel, and for machines
that only other indexes serve, of which less is known, also what is undecided must agree.

    python scripts/prove_grid.py             # all hosts; resumes where it stopped
    python scripts/prove_grid.py --sample 7  # one chunk chosen by a number
    python scripts/prove_grid.py --check     # is the recorded proof still about this code?
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _grid_amd_intel
import _proof
from _grid_amd_intel import Card, OtherHost
from _grid_facts import PROFILE, lies_in, numbers, reached, rows, sets, tag_allows, version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from packaging.version import Version

COVERED = (
    "src/bnbenv/judge/*.py",
    "src/bnbenv/judge/rules/*.py",
    "compat/bitsandbytes.json",
    "compat/torch.json",
    "compat/drivers.toml",
    "compat/floors.toml",
    "compat/loaders.toml",
    "compat/profiles.toml",
    "compat/broken.toml",
    "scripts/_grid_facts.py",
    "scripts/_grid_amd_intel.py",
    "scripts/prove_grid.py",
)
PROOF = "prove_grid"
HOSTS, OTHERS, CHUNK, SEED = 5_000, 1_000, 250, 20261123

DRIVERS = (
    "440.33.01", "450.80.02", "470.82.01", "515.65.01", "525.60.12", "525.60.13", "535.183.06", "550.54.15",
    "560.35.05", "565.57.01", "570.26", "575.57.08", "580.65.06", "580.95.05", "590.44.01", "610.43.02",
)  # fmt: skip
WINDOWS_DRIVERS = ("451.48", "452.39", "472.50", "527.41", "528.33", "552.22", "572.61", "576.57", "580.88",
                   "582.28", "591.44")  # fmt: skip
GPU_SETS = (
    ("3.7",), ("5.0",), ("5.2",), ("6.0",), ("6.1",), ("7.0",), ("7.5",), ("8.0",), ("8.6",), ("8.9",),
    ("9.0",), ("10.0",), ("10.3",), ("12.0",), ("6.1", "8.6"), ("6.1", "12.0"), ("7.0", "12.0"),
    ("7.5", "8.9"), ("5.2", "6.1"), ("8.0", "9.0", "12.0"), ("12.1",), ("11.0",), (),
)  # fmt: skip
# Which indexes answer: all; PyPI alone; PyPI and one of PyTorch's; all of PyTorch's and no PyPI.
REACHES = ("all",) * 6 + ("pypi",) * 3 + ("pypi pytorch-cu126", "pypi pytorch-cu118", "pytorch")
GLIBCS = ("musl", "2.17", "2.23", "2.24", "2.27", "2.28", "2.31", "2.34", "2.35", "2.39")
PYTHONS = (("3.9",), ("3.10",), ("3.11",), ("3.12",), ("3.13", "3.14"), ("3.10", "3.11", "3.12"), ())


@dataclass(frozen=True)
class Host:
    """A simulated machine in plain words, for the judge and for the oracle."""

    os: str
    arch: str
    wsl: bool
    glibc: str | None
    driver: str | None
    gpus: tuple[str, ...]
    pythons: tuple[str, ...]
    reach: str = "all"
    l4t: str | None = None


def boards() -> list[Host]:
    """Machines whose torch stands on other indexes: Jetson boards, and Windows on ARM, also without a GPU."""
    usual = [(), ("3.10",), ("3.11", "3.12"), ("3.13",), ("3.10", "3.13")]
    reaches = ("all", "pypi", "pytorch", "pypi jetson-jp6-cu126", "pypi nvidia")
    found = [
        Host("linux", "aarch64", False, glibc, driver, ("8.7",), pythons, reach, l4t)  # noqa: FBT003
        for l4t, glibc in (("35.4.1", "2.31"), ("36.4.3", "2.35"), ("R36.3.0", "2.35"))
        for driver in ("540.4.0", "560.35.05")
        for pythons in usual
        for reach in reaches
    ]
    found += [
        Host("windows", "aarch64", False, None, driver, gpus, pythons, reach)  # noqa: FBT003
        for driver, gpus in (
            (None, ()),
            *(
                (driver, (gpu,))
                for driver in ("610.62", "616.41", "620.10")
                for gpu in ("8.9", "12.0", "12.1")
            ),
            ("616.41", ("12.1", "8.9")),
        )
        for pythons in (*usual, ("3.12", "3.13"))
        for reach in reaches
    ]
    return found


def hosts() -> list[Host]:
    """A seeded choice from the product of all axes, each host once."""
    chance = random.Random(SEED)
    found: dict[Host, None] = {}
    while len(found) < HOSTS:
        system, arch = chance.choice(
            (("linux", "x86_64"),) * 8
            + (("windows", "x86_64"), ("linux", "aarch64")) * 2
            + (("macos", "aarch64"),)
        )
        gpus = chance.choice(GPU_SETS) if system != "macos" else ()
        wsl = system == "linux" and arch == "x86_64" and bool(gpus) and chance.random() < 0.1
        drivers = WINDOWS_DRIVERS if wsl or system == "windows" else DRIVERS
        host = Host(
            os=system,
            arch=arch,
            wsl=wsl,
            glibc=chance.choice(GLIBCS) if system == "linux" else None,
            driver=chance.choice(drivers) if gpus else None,
            gpus=gpus,
            pythons=chance.choice(PYTHONS),
            reach=chance.choice(REACHES),
        )
        found[host] = None
    return list(found)


# ---- the oracle: the data files and nothing of the judge --------------------------------------------


def runs_on(cubins: tuple[str, ...], gpu: str) -> bool:
    major, minor = numbers(gpu)
    return any(numbers(cubin)[0] == major and numbers(cubin)[1] <= minor for cubin in cubins)


@cache
def driver_branch(first: int) -> int:
    known = [row["branch"] for row in rows("drivers.toml", "driver_branches") if row["branch"] <= first]
    return max(known, default=first)


def confirmed(row: dict[str, Any]) -> bool:
    """Whether nobody doubts what the row says."""
    return row.get("confidence") != "low"


def for_board(row: dict[str, Any], host: Host) -> bool:
    """Whether a build is made for the host's L4T, or for no L4T and the host is no board."""
    own = numbers(host.l4t.removeprefix("R"))[0] if host.l4t else None
    return bool(row.get("l4t") == own)


def torch_serves(row: dict[str, Any], host: Host) -> bool:
    """Whether a torch build runs on the host, Python left open."""
    if (row["os"], row["arch"]) != (host.os, host.arch) or not for_board(row, host):
        return False
    if not reached(row["index"], host.reach) or host.glibc == "musl":
        return False
    for asked in (row.get("glibc"), row.get("symbol_versions", {}).get("GLIBC")):
        if host.glibc and asked and numbers(host.glibc) < numbers(asked):
            return False
    if not host.gpus:
        return True
    if not row.get("cuda") or host.driver is None:
        return False
    major = numbers(row["cuda"])[0]
    column = "windows" if host.wsl or host.os == "windows" else "linux"
    known = next(row for row in rows("drivers.toml", "driver_floors") if row["major"] == major)
    on_arm = host.os == "windows" and host.arch == "aarch64"
    floor = known.get("windows_arm", known[column]) if on_arm else known[column]
    if numbers(host.driver) < numbers(floor):
        return False
    return all(runs_on(tuple(row.get("cubins", ())), gpu) for gpu in host.gpus)


def driver_knows(host: Host) -> bool:
    if host.driver is None:
        return True
    branch = driver_branch(numbers(host.driver)[0])
    for gpu in host.gpus:
        for row in rows("drivers.toml", "architectures"):
            if gpu in row["capabilities"] and not row.get("first", 0) <= branch <= row.get("last", 10**6):
                return False
    return True


def library_for(wheel: dict[str, Any], row: dict[str, Any], host: Host) -> dict[str, Any] | None:
    """The library that the wheel's loader takes: exact, or from 0.50 on the nearest of the same major."""
    ending = {"linux": "so", "windows": "dll", "macos": "dylib"}[host.os]
    held = {library["name"]: library for library in wheel["libraries"]}
    if not host.gpus:
        return held.get(f"libbitsandbytes_cpu.{ending}")
    loader = next(r for r in rows("loaders.toml", "loaders") if lies_in(wheel["version"], r["versions"]))
    major, minor = numbers(row["cuda"])[:2]
    tail = ""
    if "nocublaslt_below" in loader and max(map(numbers, host.gpus)) < numbers(loader["nocublaslt_below"]):
        tail = "_nocublaslt"
    exact: dict[str, Any] | None = held.get(f"libbitsandbytes_cuda{major}{minor}{tail}.{ending}")
    if exact or loader["match"] == "exact":
        return exact
    kin = [
        (numbers(library["toolkit"])[1], library)
        for library in wheel["libraries"]
        if library["backend"] == "cuda" and numbers(library["toolkit"])[0] == major
    ]
    below = [pair for pair in kin if pair[0] <= minor]
    if below:
        kin = [max(below, key=lambda pair: pair[0])]
    nearest: dict[str, Any] | None = min(kin, key=lambda pair: pair[0])[1] if kin else None
    return nearest


def wheel_serves(wheel: dict[str, Any], row: dict[str, Any], host: Host) -> bool:
    """Whether a bitsandbytes wheel runs on the host beside a torch build, Python left open."""
    if (wheel["os"], wheel["arch"]) != (host.os, host.arch) or wheel["platform"] == "any":
        return False
    if host.glibc == "musl" or not for_board(wheel, host):
        return False
    if wheel.get("broken") or not lies_in(row["version"], wheel.get("requires_torch")):
        return False
    if not tag_allows(wheel["platform"], host.glibc):
        return False
    if not host.gpus and version(wheel["version"]) < version("0.46.0"):
        return False  # no 4-bit operations for the CPU
    library = library_for(wheel, row, host)
    if library is None:
        return False
    asked = library.get("symbol_versions", {}).get("GLIBC")
    if host.glibc and asked and numbers(host.glibc) < numbers(asked):
        return False
    return all(runs_on(tuple(library.get("cubins", ())), gpu) for gpu in host.gpus)


def best(
    host: Host, *, believing: bool = False, kinds: tuple[bool, ...] = (True, False)
) -> tuple[Any, ...] | None:
    """By exhaustive search: right kind of build, set, torch, bitsandbytes and Python of the best stack.

    Args:
        believing: also of rows that are not confirmed.
        kinds: the right kind of build, or the wrong one.
    """
    if not driver_knows(host):
        return None
    told = [row for row in rows("torch.json") if believing or confirmed(row)]
    builds = [row for row in told if torch_serves(row, host)]
    builds.sort(key=lambda row: version(row["version"]), reverse=True)
    wheels = [row for row in rows("bitsandbytes.json") if believing or confirmed(row)]
    wheels.sort(key=lambda row: version(row["version"]), reverse=True)
    for right in (kind for kind in kinds if kind or not host.gpus):
        ours = [row for row in builds if host.gpus or (not row.get("cuda") and not _other(row)) is right]
        for group in sets():
            found = _best_in(group, ours, wheels, host)
            if found:
                return (right, group["name"], *found)
    return None


def best_told(host: Host) -> tuple[bool | None, tuple[Any, ...] | None]:
    """The best stack, and whether it is certain: of each kind of build what is confirmed comes first."""
    for right in (True, False):
        for believing in (False, True):
            if found := best(host, believing=believing, kinds=(right,)):
                return (None if believing else True), found
    return None, None


def _other(row: dict[str, Any]) -> bool:
    return bool(row.get("rocm")) or row["build"] == "xpu"


def _best_in(
    group: dict[str, Any], builds: list[dict[str, Any]], wheels: list[dict[str, Any]], host: Host
) -> tuple[str, str, str] | None:
    top: tuple[Version, Version, Version] | None = None
    for row in builds:
        if not lies_in(row["version"], group["torch"]) or (top and version(row["version"]) < top[0]):
            continue
        for wheel in wheels:
            if not lies_in(wheel["version"], group["packages"]["bitsandbytes"]):
                continue
            if not wheel_serves(wheel, row, host):
                continue
            for python in row["pythons"]:
                if host.pythons and python not in host.pythons:
                    continue
                if not lies_in(python, group["python"]) or not lies_in(python, wheel.get("requires_python")):
                    continue
                key = (version(row["version"]), version(wheel["version"]), version(python))
                top = max(top, key) if top else key
    return (str(top[0]), str(top[1]), str(top[2])) if top else None


# ---- the judge, asked ----------------------------------------------------------------------------


def target_of(host: Host) -> Any:
    from bnbenv.machine.target import Gpu, Target
    from bnbenv.units import ComputeCapability, DriverVersion

    return Target(
        name="host",
        os=host.os,  # type: ignore[arg-type]
        arch=host.arch,  # type: ignore[arg-type]
        accelerator="cuda" if host.gpus else "cpu",
        wsl=host.wsl,
        libc=_libc(host.glibc),
        driver=DriverVersion.parse(host.driver) if host.driver else None,
        gpus=tuple(Gpu(name="GPU", compute_capability=ComputeCapability.parse(gpu)) for gpu in host.gpus),
        pythons=host.pythons,
        tegra=host.l4t is not None,
        l4t=host.l4t,
    )


def _libc(text: str | None) -> Any:
    from bnbenv.machine.target import Libc
    from bnbenv.units import DottedVersion

    if text == "musl":
        return Libc(family="musl", version=DottedVersion.parse("1.2.4"))
    return Libc(family="glibc", version=DottedVersion.parse(text)) if text else None


def target_of_other(host: OtherHost) -> Any:
    from bnbenv.machine.target import Gpu, Target
    from bnbenv.units import DottedVersion

    return Target(
        name="host",
        os=host.os,  # type: ignore[arg-type]
        arch=host.arch,  # type: ignore[arg-type]
        accelerator=host.accelerator,
        libc=_libc(host.glibc),
        libstdcxx=DottedVersion.parse(host.glibcxx) if host.glibcxx else None,
        gpus=tuple(
            Gpu(name="GPU", gfx=card.gfx, integrated=card.integrated, visible=card.visible, index=place)
            for place, card in enumerate(host.cards)
        ),
        rocm=host.rocm,
        pythons=host.pythons,
    )


def asked(
    batch: list[Host], *, reach: str, cuda: str | None = None
) -> Iterator[tuple[Any, ...] | str | None]:
    """The judge's answer for each host; ``"undecided"`` where it offers only what nobody has shown to run."""
    targets = [target_of(host) for host in batch]
    for target, answer in zip(targets, _answers(targets, reach=reach, cuda=cuda), strict=True):
        if answer is None:
            yield None
        else:
            yield _chosen(answer, target) if answer.judgement.works else "undecided"


def _chosen(answer: Any, target: Any) -> tuple[Any, ...]:
    """A stack of the judge's as `best` tells it."""
    from bnbenv.judge.order import made_for

    stack = answer.stack
    return (
        made_for(stack.torch, target),
        _set_of(stack),
        stack.torch.version,
        stack.bitsandbytes.version if stack.bitsandbytes else "",
        stack.python,
    )


def asked_others(
    batch: list[OtherHost],
    reach: str,
    env: tuple[tuple[str, str], ...],
    pins: tuple[str | None, str | None],
) -> Iterator[Any]:
    """The same for GPUs of AMD and Intel: with what is undecided, and the very build."""
    targets = [target_of_other(host) for host in batch]
    for answer in _answers(targets, reach=reach, env=dict(env), torch=pins[0], bitsandbytes=pins[1]):
        stack = answer and answer.stack
        yield stack and (
            answer.judgement.works is None,
            _set_of(stack),
            stack.torch.version,
            stack.torch.build,
            stack.bitsandbytes.version,
            stack.python,
        )


def _answers(targets: list[Any], *, reach: str, **narrowed: Any) -> Iterator[Any]:
    """The judge's solution for each target; ``None`` where it finds none."""
    from bnbenv.judge.classes import solve_all
    from bnbenv.judge.stack import Offers, Request, Solution

    matrix = _matrix()
    shut = frozenset(row.index for row in matrix.torch if not reached(row.index, reach))
    request = Request(profile=PROFILE, **narrowed)
    for answer in solve_all(request, targets, matrix, Offers(unavailable=shut)):
        yield answer if isinstance(answer, Solution) else None


def _set_of(stack: Any) -> str:
    """The name of the package set that a stack was made from."""
    packages = dict(stack.packages)
    (name,) = (
        group["name"]
        for group in sets()
        if {name: text for name, text in group["packages"].items() if name != "bitsandbytes"} == packages
    )
    return str(name)


@lru_cache(maxsize=1)
def _matrix() -> Any:
    from bnbenv.matrix.load import load

    return load(
        "bitsandbytes", "torch", "driver_floors", "driver_branches", "architectures", "indexes", "floors",
        "profiles", "hazards", "known_faults", "loaders", "caveats", "verified",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Published:
    """A host for which a stack is published, and the releases that the answer must not be older than.

    Attributes:
        changes: to `_HOST`.
        torch, bitsandbytes: ``""`` where no release is named; both, where the stack is published as none.
        index: the one that torch must come from, ``None`` where any will do.
        certain: whether the judge may call it good; otherwise it must say what is not confirmed.
    """

    changes: dict[str, Any]
    torch: str = ""
    bitsandbytes: str = ""
    index: str | None = None
    certain: bool = True


_HOST = Host("linux", "x86_64", False, "2.35", "580.95.05", ("8.6",), ("3.11", "3.12"))  # noqa: FBT003
_WINDOWS: dict[str, Any] = {"os": "windows", "glibc": None}
_ORIN: dict[str, Any] = {"arch": "aarch64", "gpus": ("8.7",), "driver": "540.4.0", "l4t": "36.4.3"}
_SPARK: dict[str, Any] = {**_WINDOWS, "arch": "aarch64", "gpus": ("12.1",), "driver": "616.41"}


def _host(torch: str, bitsandbytes: str, **changes: Any) -> Published:
    return Published(changes=changes, torch=torch, bitsandbytes=bitsandbytes)


# The rows of the table of published stacks, each with the hosts that hold it.
STACKS: dict[str, tuple[Published, ...]] = {
    "7.5 and newer, driver 580": (
        _host("2.15.0", "0.50.2"),
        _host("2.15.0", "0.50.2", pythons=("3.14",)),
        _host("2.15.0", "0.50.2", **_WINDOWS, driver="581.15"),
    ),
    "Pascal and Volta, driver 525 to 580": (
        _host("2.14.1", "0.50.2", gpus=("6.1",)),
        _host("2.14.1", "0.50.2", gpus=("7.0",), driver="525.60.13"),
        _host("2.14.1", "0.50.2", **_WINDOWS, driver="528.33", gpus=("6.1",)),
    ),
    "Maxwell": (_host("2.14.1", "0.47.0", gpus=("5.2",)),),
    "5.0 to 9.0, driver 450 to 524": (
        _host("2.7.1", "0.50.2", driver="470.82.01"),
        _host("2.7.1", "0.50.2", gpus=("6.0",), driver="470.82.01"),
        _host("2.7.1", "0.50.2", gpus=("9.0",), driver="520.61.05"),
        _host("2.7.1", "0.47.0", gpus=("5.0",), driver="450.80.02"),
    ),
    "Turing to Hopper, driver 525 to 579": (
        _host("2.14.1", "0.50.2", driver="535.183.06"),
        _host("2.14.1", "0.50.2", gpus=("7.5",), driver="525.60.13"),
        _host("2.14.1", "0.50.2", gpus=("9.0",), driver="570.26"),
    ),
    "Blackwell, driver 570 to 579": (_host("2.11.0", "0.50.2", gpus=("12.0",), driver="570.26"),),
    "B300 and GB10": (
        _host("2.11.0", "0.50.2", gpus=("10.3",)),
        _host("2.11.0", "0.50.2", gpus=("12.1",), arch="aarch64"),
    ),
    "Volta beside Blackwell": (_host("2.10.0", "0.47.0", gpus=("7.0", "12.0")),),
    "Kepler": (_host("", "", gpus=("3.7",), driver="470.82.01"),),
    "Python 3.10": (_host("2.14.1", "0.50.2", pythons=("3.10",)),),
    "Python 3.9": (_host("2.8.0", "0.48.2", pythons=("3.9",)),),
    # The row names the index alone; 2.8.0 is the first torch for which the index is named elsewhere, and
    # 0.46.1 the first bitsandbytes that any set of the profile takes. Nobody has measured either.
    "Jetson Orin": (
        Published(
            changes={**_ORIN, "pythons": ("3.10",)},
            torch="2.8.0",
            bitsandbytes="0.46.1",
            index="jetson-jp6-cu126",
            certain=False,
        ),
    ),
    "GB10 on Linux": (_host("2.11.0", "0.49.0", gpus=("12.1",), arch="aarch64"),),
    "RTX Spark on Windows": (
        Published(
            changes={**_SPARK, "pythons": ("3.12", "3.13")},
            torch="2.14.0",
            bitsandbytes="0.50.1",
            index="nvidia",
        ),
    ),
    "PyPI alone, driver 525 to 579": (_host("2.10.0", "0.50.2", driver="550.54.15", reach="pypi"),),
    "PyPI alone, Pascal and Maxwell": (
        _host("2.7.1", "0.50.2", gpus=("6.1",), reach="pypi"),
        _host("2.7.1", "0.47.0", gpus=("5.2",), reach="pypi"),
    ),
    "PyPI alone, driver 450 to 524": (
        _host("2.0.1", "0.45.5", driver="470.82.01", reach="pypi", pythons=("3.9", "3.11")),
    ),
}
STACKS_PUBLISHED = 17


def judge_chunk(batch: list[Host]) -> dict[str, Any]:
    """The counts of one chunk, and its disagreements."""
    row: dict[str, Any] = {"hosts": len(batch), "solved": 0, "unsolvable": 0, "undecided": 0, "misses": []}
    for reach in dict.fromkeys(REACHES):
        some = [host for host in batch if host.reach == reach]
        for host, said in zip(some, asked(some, reach=reach), strict=True):
            right = best(host)
            if said == "undecided":  # allowed only where nothing is certain
                row["undecided"] += 1
                agreed = right is None
            else:
                row["unsolvable" if said is None else "solved"] += 1
                agreed = said == right
            if not agreed:
                row["misses"].append(f"{host}: judge {said}, oracle {right}")
    return row


def judge_boards() -> dict[str, Any]:
    """The same for machines that other indexes serve; what is undecided must be the best of what is told."""
    row: dict[str, Any] = {"hosts": 0, "solved": 0, "unsolvable": 0, "undecided": 0, "misses": []}
    everyone = boards()
    for reach in dict.fromkeys(host.reach for host in everyone):
        some = [host for host in everyone if host.reach == reach]
        targets = [target_of(host) for host in some]
        for host, target, answer in zip(some, targets, _answers(targets, reach=reach), strict=True):
            certain, right = best_told(host)
            works = answer and answer.judgement.works
            said = answer and _chosen(answer, target)
            row["hosts"] += 1
            row["unsolvable" if said is None else "solved" if works else "undecided"] += 1
            if (works, said) != (certain, right):
                row["misses"].append(f"{host}: judge {said} ({works}), oracle {right} ({certain})")
    return row


def judge_others(batch: list[OtherHost]) -> dict[str, Any]:
    """The same for hosts with GPUs of AMD and Intel."""
    row: dict[str, Any] = {"hosts": len(batch), "solved": 0, "unsolvable": 0, "undecided": 0, "misses": []}
    for asks in dict.fromkeys(host.asks for host in batch):
        some = [host for host in batch if host.asks == asks]
        for host, said in zip(some, asked_others(some, *asks), strict=True):
            right = _grid_amd_intel.best(host)
            row["unsolvable" if said is None else "undecided" if said[0] else "solved"] += 1
            if said != right:
                row["misses"].append(f"{host}: judge {said}, oracle {right}")
    return row


# bitsandbytes' own table of what its newest release serves: CUDA of torch, compute capabilities.
TABLE = (
    ("linux", "11.8", ("6.0", "6.1", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0")),
    ("linux", "12.6", ("6.0", "6.1", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0")),
    ("linux", "12.8", ("7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")),
    ("linux", "13.0", ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")),
    ("linux", "13.2", ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")),
    ("linux aarch64", "12.6", ("9.0",)),
    ("linux aarch64", "13.0", ("9.0", "10.0", "12.0", "12.1")),
    ("windows", "11.8", ("6.1", "7.5", "8.6", "8.9")),
    ("windows", "12.6", ("6.1", "7.5", "8.6", "8.9")),
    ("windows", "12.8", ("7.0", "7.5", "8.6", "8.9", "12.0")),
    ("windows", "13.0", ("7.5", "8.6", "8.9", "12.0")),
)
# And of its targets for ROCm and XPU: the newest torch for either is served.
TARGETS = ("gfx908", "gfx90a", "gfx942", "gfx950", "gfx1030", "gfx1100", "gfx1101", "gfx1102", "gfx1150",
           "gfx1151", "gfx1200", "gfx1201")  # fmt: skip
# Published as served by nothing.
UNSERVED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("pascal-and-blackwell", {"gpus": ("6.1", "12.0")}),
    ("jetson-orin-from-pytorch", {**_ORIN, "reach": "pytorch"}),
    ("jetson-orin-from-pypi", {**_ORIN, "reach": "pypi"}),
    ("windows-on-arm-from-pytorch", {**_SPARK, "reach": "pytorch"}),
    ("pascal-driver-590", {"gpus": ("6.1",), "driver": "590.44.01"}),
    ("gpu-on-windows-from-pypi", {**_WINDOWS, "driver": "581.15", "reach": "pypi"}),
)


def judge_stack(published: Published, *, cuda: str | None = None) -> tuple[str, str | None]:
    """Whether a host is ``solved``, ``undecided`` or ``unsolvable``; and what the answer falls short of."""
    from dataclasses import replace

    host = replace(_HOST, **published.changes)
    (answer,) = _answers([target_of(host)], reach=host.reach, cuda=cuda)
    if answer is None or not published.torch:
        if answer is None and not published.torch:
            return "unsolvable", None
        return "unsolvable" if answer is None else "solved", f"judge {answer and answer.stack}"
    stack = answer.stack
    reached_it = (
        answer.judgement.works is (True if published.certain else None)
        and published.index in (None, stack.torch.index)
        and version(stack.torch.version) >= version(published.torch)
        and version(stack.bitsandbytes.version) >= version(published.bitsandbytes)
    )
    state = "solved" if answer.judgement.works else "undecided"
    return state, None if reached_it else f"judge {_chosen(answer, target_of(host))} of {stack.torch.index}"


def judge_published() -> dict[str, Any]:
    from dataclasses import replace

    row: dict[str, Any] = {"hosts": 0, "solved": 0, "unsolvable": 0, "undecided": 0, "misses": []}
    held = [name for name, several in STACKS.items() if several]
    if len(held) != STACKS_PUBLISHED:
        row["misses"].append(f"{len(held)} of {STACKS_PUBLISHED} published stacks are held")
    wanted: list[tuple[str, Published, str | None]]
    wanted = [(name, published, None) for name in held for published in STACKS[name]]
    wanted += [(name, Published(changes=changes), None) for name, changes in UNSERVED]
    for system, pinned, gpus in TABLE:
        more = {**_WINDOWS, "driver": "581.15"} if system == "windows" else {}
        more |= {"arch": "aarch64"} if system == "linux aarch64" else {}
        wanted += [
            (f"table {system} {pinned} {gpu}", _host("2.4.0", "0.50.2", **more, gpus=(gpu,)), pinned)
            for gpu in gpus
        ]
    for name, published, cuda in wanted:
        state, short = judge_stack(published, cuda=cuda)
        row["hosts"] += 1
        row[state] += 1
        if short is not None:
            row["misses"].append(f"{name}: {short}, published {published}")
    amd = OtherHost(
        accelerator="rocm",
        os="linux",
        arch="x86_64",
        glibc="2.39",
        glibcxx="3.4.33",
        cards=(),
        rocm=None,
        pythons=("3.12",),
        env=(),
        pins=(None, None),
        reach="all",
    )
    others = [replace(amd, cards=(Card(gfx=gfx),)) for gfx in TARGETS]
    others += [replace(amd, accelerator="xpu", cards=(Card(),), os=os) for os in ("linux", "windows")]
    for other in others:
        (told,) = asked_others([other], *other.asks)
        row["hosts"] += 1
        if told and not told[0] and version(told[2]) >= version("2.14.1") and told[4] == "0.50.2":
            row["solved"] += 1
        else:
            row["misses"].append(f"{other}: judge {told}, published as served")
    return row


def chunks() -> dict[str, Callable[[], dict[str, Any]]]:
    """What there is to judge, by key; a sample is one of these."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    everyone, others = hosts(), _grid_amd_intel.hosts(OTHERS, SEED)
    for number, start in enumerate(range(0, HOSTS, CHUNK)):
        found[f"chunk-{number:02}"] = partial(judge_chunk, everyone[start : start + CHUNK])
    for number, start in enumerate(range(0, OTHERS, CHUNK)):
        found[f"amd-intel-{number:02}"] = partial(judge_others, others[start : start + CHUNK])
    found["boards"] = judge_boards
    found["published"] = judge_published
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--sample", type=int, metavar="N", help="judge one chunk, chosen by N; records nothing"
    )
    parser.add_argument("--check", action="store_true", help="tell whether the record still stands")
    arguments = parser.parse_args()
    if arguments.check:
        reasons = _proof.check(PROOF, COVERED)
        print("\n".join(reasons) or f"`{PROOF}` stands")
        return 1 if reasons else 0
    tasks = chunks()
    if arguments.sample is not None:
        keys = list(tasks)
        row = tasks[keys[arguments.sample % len(keys)]]()
        print(json.dumps(row, indent=1))
        return 1 if row["misses"] else 0
    proof = _proof.resume(PROOF, COVERED)
    for key, task in tasks.items():
        if key in proof.rows:
            continue
        began = time.perf_counter()
        row = task()
        proof.add(key, row, seconds=time.perf_counter() - began)
        _proof.save(proof)
        print(f"{key}: {row['hosts']} hosts, {len(row['misses'])} misses", flush=True)
    names = ("hosts", "solved", "unsolvable", "undecided")
    proof.counts = {name: sum(row[name] for row in proof.rows.values()) for name in names}
    proof.misses = [miss for row in proof.rows.values() for miss in row["misses"]]
    proof.circumstances = {"python": sys.version.split()[0], "seed": str(SEED)}
    proof.complete = True
    _proof.save(proof)
    print(json.dumps({**proof.counts, "misses": len(proof.misses), "seconds": proof.seconds}))
    return 1 if proof.misses else 0


if __name__ == "__main__":
    sys.exit(main())
