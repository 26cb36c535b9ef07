# ruff: noqa: E501 - conditions and tables stand in one line
"""Asks `check` about failures that people reported, and about pairs that were published for each other.

    python scripts/score_check.py                     # the corpus beside the checkout
    python scripts/score_check.py --corpus FILE       # another one of the same form
    python scripts/score_check.py --write             # also record the two numbers for the README

Recall: of the reports whose `env` names enough facts, how many failures are foretold: their cause is told as an
error, a warning or an undecided fact. What a report does not name is filled in every way that the day of the
report allows: torch by each release with a build for that CUDA (PyPI's where none is named), bitsandbytes by each
release of the year before. If the cause is told for all of them it is foretold, if for none it is missed; if for
some, the report names too little. Each miss has its reason, by the id of the report; one without, and a reason
that nothing needs any more, is an error.

False alarms: each torch release beside the bitsandbytes release that was current when the next one came out, on
every GPU that both hold a cubin for, with the oldest driver of that CUDA major; and stacks that are published as
working. An error is a false alarm.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _proof
from bnbenv.errors import UsageError
from bnbenv.judge import coverage
from bnbenv.judge.check import Combination, check, find_wheel
from bnbenv.judge.loader import backend_of
from bnbenv.judge.ranges import version
from bnbenv.machine.document import target_from_dict
from bnbenv.machine.target import Gpu, Libc, Target
from bnbenv.matrix.gpus import find_gpu
from bnbenv.matrix.load import load
from bnbenv.units import ComputeCapability, CudaVersion, DottedVersion, DriverVersion
from bnbenv.workflows.choose import JUDGED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CORPUS = _proof.ROOT.parent / "shared" / "corpus" / "dev.jsonl"
RECORD = "score_check"

# When each torch release came out, from the history of pytorch/test-infra.
RELEASED = {
    "2.0": "2023-03-14", "2.1": "2023-10-03", "2.2": "2024-01-29", "2.3": "2024-04-23", "2.4": "2024-07-23",
    "2.5": "2024-10-16", "2.6": "2025-01-28", "2.7": "2025-04-22", "2.8": "2025-08-06", "2.9": "2025-10-14",
    "2.10": "2026-01-20", "2.11": "2026-03-23", "2.12": "2026-05-12", "2.13": "2026-07-08",
    "2.14": "2026-09-01", "2.15": "2026-11-01",
}  # fmt: skip
GLIBC = {"18.04": "2.27", "20.04": "2.31", "22.04": "2.35", "24.04": "2.39", "25.10": "2.42"}
# Causes that no combination of releases and machine decides: the report is about something else.
ELSEWHERE = frozenset(
    ("bnb-not-installed", "package-name-typo", "stale-runtime", "source-build-no-native-lib", "user-check-invalid",
     "wrong-env-install", "installer-replaced-torch", "quant-ext-torch-abi", "rocm-broken-preview", "cwd-shadowing",
     "quant-lib-conflict", "oom-4bit-load", "torch-cuda-unavailable", "no-gpu-visible", "unknown")
)  # fmt: skip
# Causes that are no failure, or that are told beside the error which they explain.
NOTICES = frozenset(("rocm-fallback-warning", "mixed-gpu-arch", "windows-dll-load"))
# What says the same of a machine in other words.
SAME = {
    "windows-no-binary": {"no-wheel-for-platform"},
    "no-wheel-for-platform": {"macos-unsupported", "glibc-too-old", "jetson-l4t-mismatch"},
    "macos-unsupported": {"no-wheel-for-platform"},
    "missing-cuda-binary": {"cuda-too-old-for-bnb"},
    "cuda-too-old-for-bnb": {"missing-cuda-binary", "unknown-torch-build"},
    "torch-cpu-build": {"windows-cpu-torch"},
    "rocm-arch-unsupported": {"torch-arch-unsupported"},
    "gpu-below-minimum": {"no-kernel-image"},
    "rocm-unsupported-bnb": {"legacy-cuda-setup"},
}


REASONS = {
    "fork": "a fork for Windows carried other libraries under the same version",
    "source": "bitsandbytes was built from source, and not for that torch",
    "other-wheel": "the wheel of that release holds the library that was missing: another one was installed",
    "other-product": "another product sets a limit of its own, above that of bitsandbytes",
}
EXPLAINED = {
    "bitsandbytes-foundation-bitsandbytes-498": "other-wheel",
    "bitsandbytes-foundation-bitsandbytes-713": "fork",
    "jllllll-bitsandbytes-windows-webui-20": "fork",
    "rocm-bitsandbytes-82": "source",
    "rocm-bitsandbytes-91": "source",
    "vision-cair-minigpt-4-156": "fork",
    "vllm-project-vllm-14154": "other-product",
}
"""The reports whose cause is not told, and why that is."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A report as a question; what it leaves open is a tuple of choices."""

    target: Target
    torches: tuple[str, ...]
    releases: tuple[str, ...]
    python: str | None
    packages: Mapping[str, str] = field(default_factory=dict)
    profile: str = ""


class Silent(Exception):  # noqa: N818 - the report says too little
    """Why no question can be made of a report."""


def question(report: Mapping[str, Any], matrix: Any) -> Question:
    """The question that a report's facts put.

    Raises:
        Silent: it names too little.
    """
    told: dict[str, str] = report["env"]
    text = {name: str(value) for name, value in told.items()}
    target = machine(text, matrix)
    named = _first(r"(\d+\.\d+(?:\.\d+)?)(?!\.?dev)", text.get("bnb", ""))
    if report["cause"] in ("bnb-cuda-override-wrong", "cuda-conflict-ldpath"):
        raise Silent("the variable is not among its facts")
    if report["cause"] == "no-wheel-for-platform" and (target.os, target.libc, target.tegra) == (
        "linux",
        None,
        False,
    ):
        raise Silent("the C library is not named")
    if report["cause"] == "hf-stack-version-mismatch":
        raise Silent("no package of Hugging Face's is among its facts")
    releases = (named,) if named else tuple(current(matrix, report["date"]))
    if not releases:
        raise Silent("no release of bitsandbytes is named, and none was there then")
    triton = _first(r"^[\d.]+", text.get("triton", "")) or ("99" if "triton" in text else None)
    packages = {"triton": triton} if triton else {}
    python = _first(r"(3\.\d+)", text.get("python", ""))
    meant = tuple(torches(text, target, matrix, report["date"]))
    if not meant:
        raise Silent("no torch build of that kind was there then")
    return Question(
        target=target,
        torches=meant,
        releases=releases,
        python=python,
        packages=packages,
        profile=purpose(report),
    )


def purpose(report: Mapping[str, Any]) -> str:
    """The profile that the report's words tell."""
    if report["cause"] == "gpu-cc-too-low-int8":
        return "int8"
    return "inference" if re.search(r"4_?bit", str(report["text"]), re.IGNORECASE) else ""


def current(matrix: Any, date: str) -> Iterator[str]:
    """The releases of bitsandbytes of the year before a report, on whatever platform."""
    year_before = f"{int(date[:4]) - 1}{date[4:7]}"
    yield from {
        row.version: None for row in matrix.bitsandbytes if year_before <= row.uploaded[:7] <= date[:7]
    }


def machine(text: Mapping[str, str], matrix: Any) -> Target:
    """The machine that a report describes."""
    system = text.get("os", "")
    lower = system.lower()
    os = "windows" if lower.startswith("windows") else "macos" if lower.startswith("macos") else "linux"
    arm = any(word in lower for word in ("aarch64", "apple silicon", "m1", "m4", "jetson"))
    tegra = "jetson" in lower or "jetpack" in lower or "orin" in text.get("gpu", "").lower()
    glibc = next((libc for release, libc in GLIBC.items() if release in system), None)
    gpus = tuple(_gpus(text))
    rocm = (
        "rocm" in text
        or "rocm" in text.get("torch", "")
        or "gfx" in text.get("gpu", "")
        or (text.get("gpu", "").startswith(("AMD", "Radeon", "RX", "MI", "Ryzen")))
    )
    none = "none" in text.get("gpu", "") or "no GPU" in system
    accelerator = "mps" if os == "macos" else "rocm" if rocm else "cpu" if none else "cuda"
    if "Intel" in text.get("gpu", ""):
        accelerator = "xpu"
    driver = (
        _first(r"(\d{3}(?:\.\d+)*)", text.get("driver", "")) if "CUDA" not in text.get("driver", "") else None
    )
    if driver is None and (cuda := _first(r"CUDA (\d+\.\d+)", text.get("driver", ""))):
        driver = next((str(row.branch) for row in matrix.driver_branches if str(row.cuda) == cuda), None)
    if not system and not driver and "gpu" not in text and "triton" not in text:
        raise Silent("neither system nor GPU nor driver is named")
    return Target(
        name="report",
        os=os,  # type: ignore[arg-type]
        arch="aarch64" if arm else "x86_64",
        accelerator=accelerator,  # type: ignore[arg-type]
        wsl="WSL" in system,
        tegra=tegra,
        l4t=("35" if "JetPack 5" in system else None) if tegra else None,
        libc=Libc(family="glibc", version=DottedVersion.parse(glibc)) if glibc else None,
        driver=DriverVersion.parse(driver) if driver and accelerator == "cuda" else None,
        gpus=gpus if accelerator in ("cuda", "rocm") else (),
    )


def _gpus(text: Mapping[str, str]) -> Iterator[Gpu]:
    named = text.get("gpu", "")
    for gfx in re.findall(r"gfx[0-9a-f]+", named):
        yield Gpu(name=named, gfx=gfx)
        return
    capabilities = re.findall(r"\d+\.\d", text.get("cc", ""))
    if capabilities:
        for capability in capabilities:
            yield Gpu(name=named or "GPU", compute_capability=ComputeCapability.parse(capability))
        return
    for part in re.split(r"[,;+]", named):
        name = re.sub(r"^\d+x\s*|\(.*?\)", "", part).strip()
        try:
            found = find_gpu(load("gpus").gpus, name) if name else None
        except UsageError:
            found = None
        if found is not None and found.compute_capability is not None:
            yield found


def torches(text: Mapping[str, str], target: Target, matrix: Any, date: str) -> Iterator[str]:
    """Every torch that the report may mean."""
    named, cuda = text.get("torch", ""), text.get("cuda", "")
    release = _first(r"^(\d+\.\d+(?:\.\d+)?)", named)
    build = _first(r"(cu\d{3}|rocm\d+\.\d+(?:\.\d+)?)", named)
    if build is None and (number := _first(r"torch (\d+\.\d+)", cuda) or _first(r"(\d+\.\d+) torch", cuda)):
        build = CudaVersion.parse(number).tag
    if build is None and "toolkit" not in cuda and "system" not in cuda:
        build = CudaVersion.parse(number).tag if (number := _first(r"(\d{2}\.\d)", cuda)) else None
    if build is None and (number := _first(r"(?:torch |HIP |^)(\d+\.\d+)", text.get("rocm", ""))):
        build = f"rocm{number}"
    if build is None and release and (local := _first(r"\+xpu", named)):
        build = local.removeprefix("+")
    if release and build:
        yield f"{release}+{build}"
        return
    rows = [
        row
        for row in matrix.torch
        if (row.os, row.arch) == (target.os, target.arch)
        and RELEASED[".".join(row.version.split(".")[:2])] <= f"{date[:7]}-31"
        and (
            release is None
            or version(row.version).release[: len(release.split("."))] == version(release).release
        )
        and (row.build == build if build else row.index == "pypi")
    ]
    if build and not rows:
        yield f"2.0.0+{build}"  # no such build is known: what matters is what the loader makes of the name
    elif target.accelerator == "rocm" and build is None:
        raise Silent("ROCm's version is not named")
    else:
        yield from {f"{row.version}+{build}" if build else row.version: None for row in rows}


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found[1] if found and found.groups() else found[0] if found else None


def foretold(asked: Question, cause: str, matrix: Any) -> tuple[bool | None, set[str], bool]:
    """Whether the cause is told in every case that may be meant, or in none.

    And what is told at all, and whether every case is told not to work.
    """
    wanted, every = {cause} | SAME.get(cause, set()), set[str]()
    hits, failing = set(), True
    for torch, release in product(asked.torches, asked.releases):
        answer = check(
            Combination(
                torch=torch,
                bitsandbytes=release,
                python=asked.python,
                packages=asked.packages,
                profile=asked.profile,
            ),
            asked.target,
            matrix,
        )
        notices = cause in NOTICES
        told = {
            found.code
            for found in answer.judgement.findings
            if found.severity != "info" or found.undecided or notices
        }
        every |= told
        failing = failing and answer.judgement.works is False
        hits.add(bool(told & wanted))
    return (hits.pop() if len(hits) == 1 else None), every, failing


def recall(corpus: Path, matrix: Any) -> dict[str, Any]:
    """How many reported failures are foretold, and why the others are not."""
    reports = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines() if line.strip()]
    found: dict[str, Any] = {"reports": len(reports), "elsewhere": 0, "silent": 0, "asked": 0, "foretold": 0}
    found["told_to_fail"] = 0
    misses, reasons = [], Counter[str]()
    unexplained = set(EXPLAINED)
    for report in reports:
        if report["cause"] in ELSEWHERE:
            found["elsewhere"] += 1
            continue
        try:
            asked = question(report, matrix)
        except Silent as why:
            found["silent"] += 1
            misses.append(f"{report['id']}: {report['cause']}: not asked: {why}")
            continue
        hit, told, failing = foretold(asked, report["cause"], matrix)
        if hit is None:
            found["silent"] += 1
            misses.append(f"{report['id']}: {report['cause']}: not asked: told for some of what may be meant")
            continue
        found["asked"] += 1
        found["foretold"] += hit
        if not hit:
            found["told_to_fail"] += failing
            reason = EXPLAINED.get(report["id"])
            unexplained ^= {report["id"]}
            reasons[REASONS.get(reason or "", "NOT EXPLAINED")] += 1
            misses.append(
                f"{report['id']}: {report['cause']}: missed: {REASONS.get(reason or '', 'NOT EXPLAINED')}: torch {', '.join(asked.torches[:3])}, bitsandbytes "
                f"{', '.join(asked.releases[-3:])}: told {', '.join(sorted(told)) or 'nothing'}"
            )
    return {**found, "missed": dict(reasons), "unexplained": sorted(unexplained), "misses": misses}


def known_good(matrix: Any) -> Iterator[tuple[str, Combination, Target]]:
    """Pairs that were published for each other, and published stacks."""
    order = sorted(RELEASED, key=version)
    for row in matrix.torch:
        minor = ".".join(row.version.split(".")[:2])
        after = order.index(minor) + 1
        until = RELEASED[order[after]] if after < len(order) else "9999"
        if (
            row.cuda is None
            or row.provenance.confidence == "low"
            or (row.os, row.arch) == ("windows", "aarch64")
        ):
            continue
        current = [
            wheel.version
            for wheel in matrix.bitsandbytes
            if (wheel.os, wheel.arch) == (row.os, row.arch)
            and wheel.platform != "any"
            and wheel.uploaded[:10] <= until
        ]
        if not current:
            continue
        release = max(current, key=version)
        floor = next(floor for floor in matrix.driver_floors if floor.major == row.cuda.major)
        blank = Target(name="pair", os=row.os, arch=row.arch, accelerator="cuda")
        wheel = find_wheel(release, blank, matrix)
        digits = row.cuda.digits
        library = next((one for one in wheel.libraries if f"cuda{digits}." in one.name), None)
        for capability in row.cubins if library else ():
            if library is None or coverage.best_cubin(library.cubins, capability) is None:
                continue
            drivers = next(one for one in matrix.architectures if capability in one.capabilities)
            driver = floor.windows if row.os == "windows" else floor.linux
            if drivers.first is not None and driver.branch < drivers.first:
                driver = DriverVersion(f"{drivers.first}.999")
            target = replace(blank, driver=driver, gpus=(Gpu(name="GPU", compute_capability=capability),))
            name = f"{row.os} {row.arch} {row.version}+{row.build} {release} {capability} driver {driver}"
            yield name, Combination(torch=f"{row.version}+{row.build}", bitsandbytes=release), target
    for torch, bnb, gpu, driver in STACKS:
        described = {
            "os": "linux", "arch": "x86_64", "driver": driver,
            "gpus": [{"compute_capability": gpu}], "libc": {"family": "glibc", "version": "2.35"},
        }  # fmt: skip
        yield (
            f"stack {torch} {bnb} {gpu} driver {driver}",
            Combination(torch=torch, bitsandbytes=bnb, profile="qlora"),
            target_from_dict(described),
        )


# Published as working: torch, bitsandbytes, compute capability, driver.
STACKS = (
    ("2.15.0", "0.50.2", "7.5", "580.65.06"), ("2.15.0", "0.50.2", "9.0", "595.45.04"),
    ("2.14.1+cu126", "0.50.2", "6.1", "525.60.13"), ("2.14.1+cu126", "0.50.2", "7.0", "580.95.05"),
    ("2.14.1+cu126", "0.47.0", "5.2", "535.54.03"), ("2.7.1+cu118", "0.50.2", "8.6", "470.82.01"),
    ("2.14.1+cu126", "0.50.2", "8.9", "560.35.05"), ("2.11.0+cu128", "0.50.2", "12.0", "570.86.16"),
    ("2.11.0+cu130", "0.50.2", "10.3", "580.82.07"), ("2.10.0+cu128", "0.47.0", "7.0", "570.124.06"),
    ("2.10.0", "0.50.2", "8.0", "525.60.13"), ("2.7.1", "0.50.2", "6.0", "535.54.03"),
    ("2.0.1", "0.45.5", "8.6", "470.82.01"),
)  # fmt: skip


def false_alarms(matrix: Any) -> dict[str, Any]:
    """How many published pairs get an error, and which."""
    count, alarms = 0, []
    for name, asked, target in known_good(matrix):
        count += 1
        answer = check(asked, target, matrix)
        if backend_of(answer.stack.torch) == "cuda" and answer.judgement.works is False:
            codes = {found.code for found in answer.judgement.findings if found.severity == "error"}
            alarms.append(f"{name}: {', '.join(sorted(codes))}")
    return {"pairs": count, "alarms": alarms}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--write", action="store_true", help="record the numbers")
    options = parser.parse_args()
    matrix = load(*JUDGED)
    alarms = false_alarms(matrix)
    print(f"{alarms['pairs']} published pairs, {len(alarms['alarms'])} false alarms")
    print("\n".join(f"  {alarm}" for alarm in alarms["alarms"]))
    if not options.corpus.is_file():
        print(f"{options.corpus}: no corpus there", file=sys.stderr)
        return 1
    score = recall(options.corpus, matrix)
    print(
        f"{score['reports']} reports: {score['elsewhere']} are not about a combination, {score['silent']} name "
        f"too little; {score['foretold']} of {score['asked']} foretold, and {score['told_to_fail']} of the others told "
        "to fail for another reason"
    )
    print("\n".join(f"  {miss}" for miss in score["misses"]))
    if score["unexplained"]:
        print(f"missed without a reason, or a reason without a miss: {', '.join(score['unexplained'])}")
    if options.write:
        path = _proof.PROOFS / f"{RECORD}.json"
        numbers = {name: value for name, value in score.items() if name not in ("misses", "unexplained")}
        record = {**numbers, "pairs": alarms["pairs"], "false_alarms": len(alarms["alarms"])}
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 1 if alarms["alarms"] or score["unexplained"] else 0


if __name__ == "__main__":
    sys.exit(main())
