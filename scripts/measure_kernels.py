"""Measures whether GPTQModel's first use compiles a kernel, in given environments with given CUDA toolkits.

GPTQModel compiles its kernels where it runs, for the GPU that it sees. Here it is told that there is one, by
its compute capability, so that compilers suffice; nothing is computed. Beside what came of it stands what
bnbenv foretells of the toolkit.

    python scripts/measure_kernels.py --python ENVIRONMENT… --cuda-home DIRECTORY… [--kernel NAME]… [--write]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _proof
from _refresh import today
from bnbenv.machine.toolchain import find_toolchain
from bnbenv.units import CudaVersion
from bnbenv.workflows.toolchain import lacking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnbenv.machine.toolchain import Toolchain

RECORD = _proof.PROOFS / "measure_kernels.json"
KERNELS = ("exllamav2", "awq", "marlin_fp16")
_LIMIT = 3 * 3600  # seconds
# argv: the kernel. The cards are counted as none, so that the variable alone says for which to compile.
_CHILD = """
import json, os, sys, time
from importlib.metadata import version
import torch
from gptqmodel import extension
kernel = extension._EXTENSION_SPECS_BY_NAME[sys.argv[1]].resolve()
torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 0
started, before = time.monotonic(), os.times()
compiled = kernel.load()
after = os.times()
cpu = after.user + after.children_user + after.system + after.children_system
cpu -= before.user + before.children_user + before.system + before.children_system
print(json.dumps({
    "gptqmodel": version("gptqmodel"), "torch": torch.__version__, "cuda": torch.version.cuda,
    "kernel": sys.argv[1], "compiled": compiled, "seconds": round(time.monotonic() - started),
    "cpu_seconds": round(cpu),
}))
"""


def measure(python: str, home: str | None, kernel: str, capability: str) -> dict[str, Any]:
    """Compile one kernel in an empty cache."""
    environ = {name: value for name, value in os.environ.items() if name not in {"CUDA_HOME", "CUDA_PATH"}}
    if home:
        environ["CUDA_HOME"] = home
    with tempfile.TemporaryDirectory(prefix="kernels-") as cache:
        done = subprocess.run(
            [python, "-I", "-B", "-W", "ignore", "-c", _CHILD, kernel],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT,
            check=False,
            env={
                **environ,
                "TORCH_CUDA_ARCH_LIST": capability,
                "GPTQMODEL_TORCH_EXTENSIONS_DIR": cache,
                "GPTQMODEL_EXT_VERBOSE": "1",
            },
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(done.stderr[-2000:] or f"exit {done.returncode}")
    row: dict[str, Any] = json.loads(lines[-1])
    found = find_toolchain(environ)
    row |= {"toolkit": _described(found), "nvcc": str(found.cuda), "capability": capability}
    row["foretold"] = not list(lacking(found, CudaVersion.parse(row["cuda"]), compiles=True))
    row["error"] = None if row["compiled"] else _error(done.stdout + done.stderr)
    return row


def _described(found: Toolchain) -> str:
    if not found.headers:
        return "a program that starts nvcc, on PATH" if found.nvcc else "none"
    if not found.runtime:
        return "of pip's wheels, without libcudart.so"
    return "whole" if found.library_headers else "without the libraries' headers"


def _error(text: str) -> str:
    """The first line that tells an error, without the paths of this machine."""
    lines = re.findall(r"^.*(?:\d: (?:fatal )?error:|nvcc fatal|ld: cannot find).*$", text, re.MULTILINE)
    return re.sub(r"/\S*/", "", lines[0]).strip() if lines else "no error was told"


def main() -> int:
    """Measure; print, or write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", action="append", required=True, help="of an environment of `gptq`")
    parser.add_argument(
        "--cuda-home", action="append", default=[], metavar="DIR", help="a toolkit; PATH: what PATH shows"
    )
    parser.add_argument("--kernel", action="append", choices=KERNELS, help="by default all")
    parser.add_argument("--capability", default="8.9", help="of the GPU that is compiled for")
    parser.add_argument("--write", action="store_true", help="put the rows into the record")
    options = parser.parse_args()
    rows = _held()
    for python in options.python:
        for home in options.cuda_home or ["PATH"]:
            for kernel in options.kernel or KERNELS:
                row = measure(python, None if home == "PATH" else home, kernel, options.capability)
                print(json.dumps(row), flush=True)
                rows[_key(row)] = {**row, "checked": today()}
                if options.write:
                    _write(list(rows.values()))
    return 1 if any(row["foretold"] != row["compiled"] for row in rows.values()) else 0


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("torch", "nvcc", "toolkit", "capability", "kernel"))


def _held() -> dict[tuple[str, ...], dict[str, Any]]:
    if not RECORD.exists():
        return {}
    return {_key(row): row for row in json.loads(RECORD.read_text(encoding="utf-8"))["rows"]}


def _write(rows: Sequence[dict[str, Any]]) -> None:
    lines = ",\n".join(json.dumps(row) for row in sorted(rows, key=_key))
    RECORD.write_text(f'{{"schema": 1, "rows": [\n{lines}\n]}}\n', encoding="utf-8", newline="\n")


if __name__ == "__main__":
    sys.exit(main())
