"""The end of the exported self-test: runs every device in a process of its own and prints one block to paste.

Only its text is used, joined to that of `script.py`, on whose names it relies; it is never imported there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_SHOWN = 60  # failures listed in a block; the counts always tell all
_FIND = """
import torch
found = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
if hasattr(torch, "xpu"):
    found += [f"xpu:{i}" for i in range(torch.xpu.device_count())]
if torch.backends.mps.is_available():
    found.append("mps")
print(" ".join(found + ["cpu"]))
"""


def devices() -> list[str]:
    """The devices that torch sees here, the processor last."""
    asked = subprocess.run(
        [sys.executable, "-I", "-B", "-c", _FIND], capture_output=True, text=True, check=False
    )
    return asked.stdout.split() or ["cpu"]


def events_of(device: str, level: str) -> tuple[list[dict[str, Any]], int]:
    """The events of one device, and its exit code; a crash ends the list early."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "events.jsonl")
        command = [sys.executable, "-I", "-B", str(Path(__file__).resolve())]
        command += ["--device", device, "--level", level, "--events", str(path)]
        environ = {**os.environ, "HF_HUB_OFFLINE": "1"}
        ran = subprocess.run(command, capture_output=True, env=environ, check=False)
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines], ran.returncode


def summary(device: str, level: str) -> tuple[dict[str, Any], dict[str, Any], int]:
    """What is worth telling of one device, what was loaded there, and the exit code."""
    events, code = events_of(device, level)
    counts: dict[str, int] = {}
    bad = []
    begun = None
    facts: dict[str, Any] = {}
    for event in events:
        if event["event"] == "begin":
            begun = event["name"]
        elif event["event"] == "loaded":
            facts = event
        elif event["event"] == "end":
            begun = None
            counts[event["state"]] = counts.get(event["state"], 0) + 1
            if event["state"] in ("failed", "degraded"):
                keys = ("name", "dtype", "state", "shape", "error", "tolerance", "detail")
                bad.append({key: event.get(key) for key in keys})
    told = {
        "device": device,
        "name": facts.get("name"),
        "capability": facts.get("capability"),
        "crashed_in": begun,
        "counts": counts,
        "failures": bad[:_SHOWN],
    }
    return told, facts, code


def driver() -> str | None:
    """The version of NVIDIA's driver, if there is one."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return told[0] if told else None


def paste(script_sha256: str) -> int:
    """Run what the command line asks for and print the block."""
    parser = argparse.ArgumentParser(description="bnbenv's self-test as one file")
    parser.add_argument("--device", action="append", help="may be repeated (default: all that torch sees)")
    parser.add_argument("--level", choices=("quick", "full"), default="full")
    arguments = parser.parse_args()
    ran = [summary(device, arguments.level) for device in arguments.device or devices()]
    told, loaded, codes = zip(*ran)  # noqa: B905 - Python 3.9 has no `strict`
    facts = {
        "schema": 1,
        "script": script_sha256,
        "level": arguments.level,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "platform": platform.platform(),
        "driver": driver(),
        "verdict": None,
        "library": loaded[0].get("library"),
        "versions": loaded[0].get("versions"),
        "devices": list(told),
    }
    body = json.dumps(facts, indent=1, sort_keys=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    sys.stdout.write(f"----- bnbenv self-test -----\n{body}\n----- sha256 {digest} -----\n")
    return 1 if any(codes) else 0
