"""Simulated machines with GPUs of AMD and Intel, and the oracle for them: data files and no judge.

Much of what is published of AMD's GPUs is not known for certain, so that the order of stacks counts whole
here: errors forbid, what is undecided weighs more than a warning, and a warning more than any age.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from _grid_facts import PROFILE, lies_in, numbers, reached, rows, sets, tag_allows, version

if TYPE_CHECKING:
    from collections.abc import Iterator

UNDECIDED, WARNING = 2, 1

# Cards and processors' own graphics, from gfx900 of 2017 to targets that no list holds; None is unknown.
COMMON = (
    "gfx908",
    "gfx90a",
    "gfx942",
    "gfx950",
    "gfx1030",
    "gfx1100",
    "gfx1101",
    "gfx1102",
    "gfx1200",
    "gfx1201",
)
RARE = ("gfx803", "gfx900", "gfx906", "gfx1010", "gfx1031", "gfx1032", "gfx1034", "gfx1250", None)
CARDS = (*COMMON * 4, *RARE)
ON_PROCESSORS = ("gfx90c", "gfx1035", "gfx1036", "gfx1103", "gfx1150", "gfx1151", "gfx1152")
ROCMS = (
    None,
    None,
    "5.7.1",
    "6.2.4",
    "6.4.1",
    "7.0.0",
    "7.2.0",
    "10.0",
)  # what the system has; torch's counts
VARIABLES: tuple[dict[str, str], ...] = (
    *({},) * 20,
    {"HSA_OVERRIDE_GFX_VERSION": "10.3.0"},
    {"HSA_OVERRIDE_GFX_VERSION": "11.0.0"},
    {"HSA_OVERRIDE_GFX_VERSION": "9.0.10"},
    {"HSA_OVERRIDE_GFX_VERSION": "gfx1030"},
    {"HIP_VISIBLE_DEVICES": "0"},
    {"HIP_VISIBLE_DEVICES": "1"},
    {"HIP_VISIBLE_DEVICES": "1,0"},
    {"HIP_VISIBLE_DEVICES": ""},
    {"ROCR_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0"},
    {"BNB_ROCM_VERSION": "64"},
    {"BNB_ROCM_VERSION": "72"},
    {"BNB_ROCM_VERSION": "7.2"},
    {"BNB_CUDA_VERSION": "64"},
    {"LD_LIBRARY_PATH": "/usr/lib:/opt/rocm-6.4.1/lib"},
)
ROCM_REACHES = (
    *("all",) * 8,
    "pypi",
    "pytorch",
    "pypi pytorch-rocm6.3",
    "pypi pytorch-rocm6.4 pytorch-rocm7.1",
    "pypi pytorch-rocm7.2",
    "pypi pytorch-rocm6.1 pytorch-rocm5.7",
)
XPU_REACHES = ("all", "all", "pypi pytorch-xpu", "pytorch", "pypi")
GLIBCS = ("musl", "2.17", "2.27", *("2.28", "2.31", "2.34", "2.35", "2.39") * 4)
# What is asked for of torch and bitsandbytes: older releases have other loaders, libraries and targets.
PINS = (
    *((None, None),) * 4,
    (None, ">=0.50"),
    (None, "<0.50"),
    (None, "==0.49.0"),
    ("<2.14", None),
    ("<2.12", None),
    ("<2.10", None),
    ("<2.7", "<0.50"),
    ("==2.13.0", "!=0.50.2"),
    (">=2.13", "<0.50"),
)
# GLIBCXX of the distributions that have these C libraries, where the machine's own is not known.
USUAL_GLIBCXX = {"2.17": "3.4.19", "2.27": "3.4.25", "2.28": "3.4.25", "2.31": "3.4.28", "2.34": "3.4.29",
                 "2.35": "3.4.30", "2.39": "3.4.33"}  # fmt: skip
PYTHONS = (("3.9",), ("3.10",), *(("3.11",), ("3.12",), ("3.13", "3.14"), ("3.10", "3.11", "3.12"), ()) * 2)


@dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU; `integrated` and `visible` may be unknown."""

    gfx: str | None = None
    integrated: bool | None = None
    visible: bool | None = None


@dataclass(frozen=True, kw_only=True)
class OtherHost:
    """A machine with GPUs of AMD or Intel in plain words."""

    accelerator: Literal["rocm", "xpu"]
    os: str
    arch: str
    glibc: str | None
    glibcxx: str | None
    cards: tuple[Card, ...]
    rocm: str | None
    pythons: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    pins: tuple[str | None, str | None]
    reach: str

    @property
    def asks(self) -> tuple[str, tuple[tuple[str, str], ...], tuple[str | None, str | None]]:
        """What is asked of the judge beside the machine."""
        return self.reach, self.env, self.pins


def hosts(count: int, seed: int) -> list[OtherHost]:
    """A seeded choice, each host once; three of four have GPUs of AMD."""
    chance = random.Random(seed)
    found: dict[OtherHost, None] = {}
    while len(found) < count:
        amd = chance.random() < 0.75
        system, arch = chance.choice(
            (("linux", "x86_64"),) * 10 + (("linux", "aarch64"), ("windows", "x86_64"))
            if amd
            else (("linux", "x86_64"), ("windows", "x86_64")) * 5 + (("linux", "aarch64"),)
        )
        host = OtherHost(
            accelerator="rocm" if amd else "xpu",
            os=system,
            arch=arch,
            glibc=chance.choice(GLIBCS) if system == "linux" else None,
            glibcxx=chance.choice((None, None, "3.4.22", "3.4.28", "3.4.30")) if system == "linux" else None,
            cards=_cards(chance) if amd else (Card(),) * chance.choice((1, 1, 2)),
            rocm=chance.choice(ROCMS) if amd else None,
            pythons=chance.choice(PYTHONS),
            env=tuple(chance.choice(VARIABLES).items()) if amd else (),
            pins=chance.choice(PINS),
            reach=chance.choice(ROCM_REACHES if amd else XPU_REACHES),
        )
        found[host] = None
        # Like machines are solved once: some hosts have a like one that differs in a single thing.
        if chance.random() < 0.4:
            found[replace(host, **chance.choice(_other_ways(host, chance)))] = None
    return list(found)[:count]


def _other_ways(host: OtherHost, chance: random.Random) -> list[dict[str, Any]]:
    """What may be otherwise on a machine that is asked the same."""
    ways: list[dict[str, Any]] = [{"pythons": chance.choice(PYTHONS)}]
    if host.accelerator == "rocm":
        ways += [{"rocm": chance.choice(ROCMS)}, {"cards": host.cards[::-1]}]
        ways.append({"cards": tuple(replace(card, visible=True) for card in host.cards)})
    if host.os == "linux":
        ways += [{"glibc": chance.choice(GLIBCS)}, {"glibcxx": chance.choice((None, "3.4.22", "3.4.30"))}]
    return ways


def _cards(chance: random.Random) -> tuple[Card, ...]:
    """One card, several, one beside a processor's own graphics, those alone, or nothing that is known."""
    kind = chance.random()
    first = chance.choice(CARDS)
    if kind < 0.45:
        cards = [Card(gfx=first)]
    elif kind < 0.6:
        cards = [Card(gfx=first), Card(gfx=chance.choice((first, *CARDS)))]
    elif kind < 0.85:
        own = Card(gfx=chance.choice(ON_PROCESSORS), integrated=chance.choice((True, None)))
        cards = [Card(gfx=first, integrated=chance.choice((False, None))), own]
        chance.shuffle(cards)
    elif kind < 0.97:
        cards = [Card(gfx=chance.choice(ON_PROCESSORS), integrated=chance.choice((True, None, False)))]
    else:
        return ()
    if len(cards) > 1 and chance.random() < 0.3:
        hidden = chance.randrange(len(cards))
        cards = [
            Card(gfx=card.gfx, integrated=card.integrated, visible=place != hidden)
            for place, card in enumerate(cards)
        ]
    return tuple(cards)


# ---- the oracle ------------------------------------------------------------------------------------


def best(host: OtherHost) -> tuple[Any, ...] | None:
    """By exhaustive search: undecided, set, torch, its build, bitsandbytes and Python of the best stack."""
    builds = {
        id(row): (row, weight)
        for row in rows("torch.json")
        if (weight := _torch_weighs(row, host)) is not None
    }
    wheels = [
        (wheel, weight)
        for wheel in rows("bitsandbytes.json")
        if (weight := _wheel_weighs(wheel, host)) is not None
    ]
    if host.glibc == "musl" or (host.accelerator == "rocm" and host.cards and not _seen(host)):
        return None
    found = min(_stacks(host, list(builds.values()), wheels), default=None, key=lambda pair: pair[0])
    return found[1] if found else None


def _stacks(  # noqa: C901 - one choice after another
    host: OtherHost, builds: list[tuple[dict[str, Any], int]], wheels: list[tuple[dict[str, Any], int]]
) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Every stack without an error, with its place in the order."""
    pairs: dict[tuple[int, int], tuple[int, bool] | None] = {}
    for place, group in enumerate(sets()):
        for row, of_torch in builds:
            if not lies_in(row["version"], group["torch"]):
                continue
            for wheel, of_wheel in wheels:
                if not lies_in(wheel["version"], group["packages"]["bitsandbytes"]):
                    continue
                key = id(row), id(wheel)
                if key not in pairs:
                    pairs[key] = _pair_weighs(row, wheel, host)
                pair = pairs[key]
                if pair is None:
                    continue
                weight = of_torch | of_wheel | pair[0]
                for python in row["pythons"]:
                    if host.pythons and python not in host.pythons:
                        continue
                    if not (
                        lies_in(python, group["python"]) and lies_in(python, wheel.get("requires_python"))
                    ):
                        continue
                    order = (
                        weight,
                        place,
                        _newest_first(row["version"]),
                        _newest_first(wheel["version"]),
                        _newest_first(python),
                        pair[1],
                        tuple(-number for number in numbers(row.get("rocm") or "0")),
                    )
                    answer = (row["version"], row["build"], wheel["version"], python)
                    yield order, (weight >= UNDECIDED, group["name"], *answer)


@cache
def _newest_first(text: str) -> tuple[int, ...]:
    return tuple(-number for number in version(text).release)


def _seen(host: OtherHost) -> list[Card]:
    """What a process sees: a variable counts among all GPUs; an entry that names none ends the list.

    HIP looks at the first character of its own variable: an empty one is none.
    """
    env = {name: text for name, text in host.env if text or name != "HIP_VISIBLE_DEVICES"}
    named = [name for name in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES") if name in env]
    cards = [card for card in host.cards if named or card.visible is not False]
    for name in named:
        chosen = []
        for entry in env[name].split(","):
            if not entry.isdigit() or int(entry) >= len(cards):
                break
            chosen.append(cards[int(entry)])
        cards = chosen
    return cards


def _target_of(card: Card, host: OtherHost) -> str | None:
    """The target that the runtime takes a GPU for: major in decimal, minor and stepping in hexadecimal."""
    parts = dict(host.env).get("HSA_OVERRIDE_GFX_VERSION", "").split(".")
    if len(parts) == 3:
        return f"gfx{parts[0]}{int(parts[1]):x}{int(parts[2]):x}"
    return card.gfx


def _beside_a_card(card: Card, host: OtherHost) -> bool:
    """A processor's own graphics do not count where a card is to be used."""

    def own(one: Card) -> bool:
        return one.gfx in ON_PROCESSORS if one.integrated is None else one.integrated

    return own(card) and not all(own(other) for other in _seen(host))


def _torch_weighs(row: dict[str, Any], host: OtherHost) -> int | None:  # noqa: C901 - one fact after another
    """What weighs against a torch build by itself; ``None`` where it cannot serve."""
    if (row["os"], row["arch"]) != (host.os, host.arch) or not reached(row["index"], host.reach):
        return None
    if not lies_in(row["version"], host.pins[0]):
        return None
    if not (row["build"] == "xpu" if host.accelerator == "xpu" else row.get("rocm")):
        return None
    asked = [it for it in (row.get("glibc"), row.get("symbol_versions", {}).get("GLIBC")) if it]
    if host.glibc not in (None, "musl") and any(numbers(host.glibc or "") < numbers(it) for it in asked):
        return None
    weight = UNDECIDED if row.get("confidence") == "low" else 0
    if host.accelerator == "xpu":
        return weight
    if not host.cards:
        weight |= UNDECIDED | WARNING  # which GPUs there are is not known
    env = dict(host.env)
    if env.get("HSA_OVERRIDE_GFX_VERSION"):
        weight |= UNDECIDED | WARNING
    if "/rocm" in env.get("LD_LIBRARY_PATH", ""):
        weight |= WARNING
    somewhere = {gfx for other in rows("torch.json") for gfx in other.get("gfx", ())}
    for card in _seen(host):
        gfx, held = _target_of(card, host), row.get("gfx", ())
        excused = _beside_a_card(card, host)
        if gfx in held:
            continue
        if gfx is None:
            weight |= WARNING if excused else UNDECIDED | WARNING
        elif not held or gfx in somewhere:  # the published lists are not complete
            weight |= 0 if excused else UNDECIDED
        elif excused:
            weight |= WARNING
        else:
            return None
    return weight


def _wheel_weighs(wheel: dict[str, Any], host: OtherHost) -> int | None:
    if (wheel["os"], wheel["arch"]) != (host.os, host.arch) or wheel["platform"] == "any":
        return None
    if not lies_in(wheel["version"], host.pins[1]):
        return None
    if wheel.get("broken") or not (host.glibc == "musl" or tag_allows(wheel["platform"], host.glibc)):
        return None
    weight = 0
    for caveat in rows("broken.toml", "caveats"):
        concerned = (
            caveat["accelerator"] in ("", host.accelerator) and caveat.get("profile", PROFILE) == PROFILE
        )
        if concerned and lies_in(wheel["version"], caveat["versions"]):
            if caveat["severity"] == "error":
                return None
            weight |= WARNING if caveat["severity"] == "warning" else 0
    return weight


def _pair_weighs(  # noqa: C901 - one fact after another
    row: dict[str, Any], wheel: dict[str, Any], host: OtherHost
) -> tuple[int, bool] | None:
    """What weighs against both together, and whether the library is of another version than torch's."""
    if not lies_in(row["version"], wheel.get("requires_torch")):
        return None
    taken = _xpu_library(row, wheel) if host.accelerator == "xpu" else _rocm_library(row, wheel, host)
    if taken is None:
        return None
    library, weight, inexact = taken
    asked = library.get("symbol_versions") or {}
    if host.glibc not in (None, "musl"):
        if numbers(host.glibc or "") < numbers(asked.get("GLIBC", "2.0")):
            return None
        wanted = numbers(asked.get("GLIBCXX", "3.4"))
        if host.glibcxx and numbers(host.glibcxx) < wanted:
            return None
        if not host.glibcxx and numbers(USUAL_GLIBCXX[host.glibc or ""]) < wanted:
            weight |= WARNING
    if host.accelerator == "rocm":
        held = {name.partition(":")[0] for name in library["gfx"]}
        for card in _seen(host):
            gfx = _target_of(card, host)
            if gfx is not None and gfx not in held:
                if not _beside_a_card(card, host):
                    return None
                weight |= WARNING
    return weight, inexact


def _xpu_library(row: dict[str, Any], wheel: dict[str, Any]) -> tuple[dict[str, Any], int, bool] | None:
    """Of torch's oneAPI year, else the one without a year; its SYCL runtime must be the one of that year."""
    ending = "dll" if wheel["os"] == "windows" else "so"
    held = {library["name"]: library for library in wheel["libraries"] if library["backend"] == "xpu"}
    year = row.get("oneapi")
    names = [f"libbitsandbytes_xpu{year}.{ending}"] * bool(year) + [f"libbitsandbytes_xpu.{ending}"]
    found = next((held[name] for name in names if name in held), None)
    if found is None and not year:
        found = held[max(held)] if held else None
    if found is None or not (_sycl(found) & _sycl_of(year)):
        return None
    return found, 0, False


def _sycl(library: dict[str, Any]) -> set[str]:
    return {name for name in library["needed"] if "sycl" in name}


@cache
def _sycl_of(year: str | None) -> set[str]:
    """The SYCL runtimes of a oneAPI year, as libraries made for it need them; any where it is unknown."""
    every = [
        library
        for wheel in rows("bitsandbytes.json")
        for library in wheel["libraries"]
        if library["backend"] == "xpu"
    ]
    return {name for it in every if year in (None, it.get("toolkit")) for name in _sycl(it)}


def _rocm_library(
    row: dict[str, Any], wheel: dict[str, Any], host: OtherHost
) -> tuple[dict[str, Any], int, bool] | None:
    loader = next(it for it in rows("loaders.toml", "loaders") if lies_in(wheel["version"], it["versions"]))
    ending = "dll" if wheel["os"] == "windows" else "so"
    held = {library["name"]: library for library in wheel["libraries"] if library["backend"] == "rocm"}
    env = dict(host.env)
    wanted = numbers(row["rocm"])[:2]
    forced = env.get("BNB_ROCM_VERSION") if "BNB_ROCM_VERSION" in loader["override"] else None
    if forced is not None:
        library = held.get(f"libbitsandbytes_rocm{forced}.{ending}") if forced.isdigit() else None
        return _with_runtime(library, wanted, host, weight=0, inexact=False)
    if env.get("BNB_CUDA_VERSION") and held and "BNB_ROCM_VERSION" not in loader["override"]:
        return None  # it was an error beside torch for ROCm until it got a variable of its own
    if wanted[0] > 9:
        return None  # read as one digit
    library = held.get(f"libbitsandbytes_rocm{wanted[0]}{wanted[1]}.{ending}")
    if library or loader["match"] != "nearest":
        return _with_runtime(library, wanted, host, weight=0, inexact=False)
    kin = {numbers(it["toolkit"]): it for it in held.values() if numbers(it["toolkit"])[0] == wanted[0]}
    below = [toolkit for toolkit in kin if toolkit <= wanted]
    if not below:
        return None  # nothing, or one that is made for a newer ROCm than torch's
    distance = wanted[1] - max(below)[1]
    weight = UNDECIDED | WARNING if distance > 1 else 0
    return _with_runtime(kin[max(below)], wanted, host, weight=weight, inexact=True)


def _with_runtime(
    library: dict[str, Any] | None, wanted: tuple[int, ...], host: OtherHost, *, weight: int, inexact: bool
) -> tuple[dict[str, Any], int, bool] | None:
    """The library, if its ROCm libraries are torch's; those of the system beside torch's are undecided."""
    if library is None:
        return None
    majors = {_rocm_major(name) for name in library["needed"]} - {None, wanted[0]}
    if majors:
        if host.rocm is None or numbers(host.rocm)[0] not in majors:
            return None
        weight |= UNDECIDED | WARNING
    return library, weight, inexact


@cache
def _rocm_major(soname: str) -> int | None:
    """The major version of ROCm that brings a library, where the libraries for only one major need it."""
    majors = {
        numbers(library["toolkit"])[0]
        for wheel in rows("bitsandbytes.json")
        for library in wheel["libraries"]
        if library["backend"] == "rocm" and soname in library["needed"]
    }
    return majors.pop() if len(majors) == 1 else None
