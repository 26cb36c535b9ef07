"""Puts the index that uv's ``--torch-backend=auto`` takes beside the judge's choice, host by host.

uv tells under `-v` which of PyTorch's indexes it asks, and takes the first that has torch, the newest toolkit
first; nothing need be reachable for that, as it is read before any answer comes. The host is told by uv's
own variables for it (``UV_CUDA_DRIVER_VERSION``, ``UV_AMD_GPU_ARCHITECTURE``). What an index has is what the
matrix knows of it, and beside it stands the newest bitsandbytes, as uv would take it. `check` says whether
that runs.

    python scripts/compare_uv.py           # print
    python scripts/compare_uv.py --write   # also record, for the README
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _proof
from bnbenv.judge.candidates import candidates
from bnbenv.judge.check import Combination, check
from bnbenv.judge.ranges import version
from bnbenv.judge.solve import solve
from bnbenv.judge.stack import Offers, Request, Solution
from bnbenv.machine.document import target_from_dict
from bnbenv.matrix.load import load
from bnbenv.workflows.choose import JUDGED

RECORD = _proof.PROOFS / "compare_uv.json"
PYTHON = "3.12"
_ASKED = re.compile(r"/whl/([a-z0-9.]+)/torch/")

LINUX, ARM, WINDOWS = ("linux", "x86_64"), ("linux", "aarch64"), ("windows", "x86_64")
# What the host is called, its platform, GPUs, driver, whether it is WSL2.
HOSTS: tuple[tuple[str, tuple[str, str], tuple[str, ...], str | None, bool], ...] = (
    ("RTX 4090, driver 580", LINUX, ("8.9",), "580.95.05", False),
    ("RTX 4090, driver 550", LINUX, ("8.9",), "550.54.15", False),
    ("A100, driver 525", LINUX, ("8.0",), "525.60.13", False),
    ("A100, driver 470", LINUX, ("8.0",), "470.82.01", False),
    ("H100, driver 535", LINUX, ("9.0",), "535.183.06", False),
    ("RTX 5090, driver 570", LINUX, ("12.0",), "570.86.16", False),
    ("RTX 5090, driver 580", LINUX, ("12.0",), "580.95.05", False),
    ("GTX 1080, driver 580", LINUX, ("6.1",), "580.95.05", False),
    ("GTX 1080, driver 550", LINUX, ("6.1",), "550.54.15", False),
    ("GTX 1080, driver 470", LINUX, ("6.1",), "470.82.01", False),
    ("V100, driver 580", LINUX, ("7.0",), "580.95.05", False),
    ("V100, driver 535", LINUX, ("7.0",), "535.183.06", False),
    ("GTX 980 Ti, driver 580", LINUX, ("5.2",), "580.95.05", False),
    ("T4, driver 580", LINUX, ("7.5",), "580.95.05", False),
    ("GTX 1080 and RTX 3090, driver 580", LINUX, ("6.1", "8.6"), "580.95.05", False),
    ("V100 and RTX 5090, driver 580", LINUX, ("7.0", "12.0"), "580.95.05", False),
    ("GTX 1080, driver 590", LINUX, ("6.1",), "590.44.01", False),
    ("B200, driver 570", LINUX, ("10.0",), "570.86.15", False),
    ("GH200, driver 550", ARM, ("9.0",), "550.54.15", False),
    ("DGX Spark, driver 580", ARM, ("12.1",), "580.95.05", False),
    ("T4G, driver 550", ARM, ("7.5",), "550.54.15", False),
    ("Windows, RTX 4070, driver 581", WINDOWS, ("8.9",), "581.15", False),
    ("Windows, RTX 4070, driver 527", WINDOWS, ("8.9",), "527.41", False),
    ("Windows, GTX 1060, driver 581", WINDOWS, ("6.1",), "581.15", False),
    ("WSL2, RTX 3060, driver 527", LINUX, ("8.6",), "527.41", True),
    ("WSL2, RTX 3060, driver 581", LINUX, ("8.6",), "581.15", True),
    ("RX 7900 XTX", LINUX, ("gfx1100",), None, False),
    ("MI300X", LINUX, ("gfx942",), None, False),
    ("MI50", LINUX, ("gfx906",), None, False),
    ("RX 6700 XT", LINUX, ("gfx1031",), None, False),
    ("no GPU", LINUX, (), None, False),
)
_PLATFORM = {LINUX: "x86_64-manylinux_2_28", ARM: "aarch64-manylinux_2_28", WINDOWS: "windows"}


def indexes_of_uv(platform: tuple[str, str], gpus: tuple[str, ...], driver: str | None) -> tuple[str, ...]:
    """The builds whose indexes uv asks, newest toolkit first: it asks them at once and logs as it comes."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    environ |= {"UV_HTTP_TIMEOUT": "2", "UV_HTTP_RETRIES": "0"}
    if driver is not None:
        environ["UV_CUDA_DRIVER_VERSION"] = driver
    elif gpus:
        environ["UV_AMD_GPU_ARCHITECTURE"] = gpus[0]
    with tempfile.TemporaryDirectory() as scratch:
        asked = Path(scratch) / "requirements.in"
        asked.write_text("torch\n", encoding="utf-8")
        ran = subprocess.run(
            [
                str(Path(sys.executable).parent / "uv"), "pip", "compile", str(asked), "--torch-backend=auto",
                "--python-platform", _PLATFORM[platform], "--python-version", PYTHON, "--no-cache", "-v",
            ],
            capture_output=True,
            text=True,
            check=False,
            env=environ,
        )  # fmt: skip
    return tuple(sorted(set(_ASKED.findall(ran.stderr)), key=_toolkit, reverse=True))


def _toolkit(build: str) -> tuple[int, ...]:
    digits = build.lstrip("abcdefghijklmnopqrstuvwxyz")
    return tuple(map(int, digits.split("."))) if digits else ()


def target_of(platform: tuple[str, str], gpus: tuple[str, ...], driver: str | None, *, wsl: bool) -> Any:
    amd = bool(gpus) and gpus[0].startswith("gfx")
    return target_from_dict(
        {
            "os": platform[0],
            "arch": platform[1],
            "libc": {"family": "glibc", "version": "2.35"} if platform[0] == "linux" else None,
            "accelerator": "rocm" if amd else "cuda" if gpus else "cpu",
            "gpus": [{"gfx": gpu} if amd else {"compute_capability": gpu} for gpu in gpus],
            "driver": driver,
            "wsl": wsl,
            "pythons": [PYTHON],
        }
    )


def compare(matrix: Any) -> list[dict[str, Any]]:
    """One row a host."""
    found = []
    request = Request(profile="qlora")
    for name, platform, gpus, driver, wsl in HOSTS:
        target = target_of(platform, gpus, driver, wsl=wsl)
        answer = solve(request, target, matrix, Offers(), explain=False)
        ours = None
        if isinstance(answer, Solution):
            stack = answer.stack
            wheel = stack.bitsandbytes.version if stack.bitsandbytes else ""
            ours = f"{stack.torch.version}+{stack.torch.build}, bitsandbytes {wheel}"
        order = indexes_of_uv(platform, gpus, driver)
        rows = candidates(request, target, matrix, Offers()).torch
        builds = [row for release in rows for row in release if PYTHON in row.pythons]
        pick = next(
            (
                max(held, key=lambda row: version(row.version))
                for build in order
                if (held := [row for row in builds if row.build == build])
            ),
            None,
        )
        row: dict[str, Any] = {
            "host": name,
            "asked": list(order[:3]),
            "ours": ours,
            "uv": None,
            "works": None,
        }
        if pick is not None:
            newest = max(
                (
                    wheel.version
                    for wheel in matrix.bitsandbytes
                    if (wheel.os, wheel.arch) == platform and wheel.platform != "any"
                ),
                key=version,
            )
            asked = Combination(
                torch=f"{pick.version}+{pick.build}", bitsandbytes=newest, python=PYTHON, profile="qlora"
            )
            judged = check(asked, target, matrix).judgement
            row |= {
                "uv": f"{asked.torch}, bitsandbytes {newest}",
                "works": judged.works,
                "why": next(
                    (one.summary for one in judged.findings if one.severity == "error" or one.undecided), None
                ),
            }
        found.append(row)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="record the table for the README")
    options = parser.parse_args()
    matrix = load(*JUDGED)
    rows = compare(matrix)
    for row in rows:
        print(
            f"{row['host']}: uv {row['uv']} (asks {', '.join(row['asked'])}): {row['works']} "
            f"{row.get('why') or ''} | judge: {row['ours']}"
        )
    dead = [row for row in rows if row["works"] is False]
    print(f"{len(dead)} of {len(rows)} answers of uv would not run")
    if options.write:
        uv = subprocess.run(
            [str(Path(sys.executable).parent / "uv"), "--version"], capture_output=True, text=True, check=True
        )
        record = {
            "date": datetime.now(tz=timezone.utc).date().isoformat(),
            "uv": uv.stdout.split()[1],
            "matrix": matrix.revision,
            "rows": rows,
        }
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
