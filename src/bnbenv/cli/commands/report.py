"""`report`: everything a maintainer asks for, in one text to paste, without what is nobody's business."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.cli.options import add_environment
from bnbenv.cli.outcome import Outcome
from bnbenv.words import counted

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable, Mapping

    from bnbenv.cli.ui import Ui
    from bnbenv.machine.host import Host
    from bnbenv.workflows.doctor import Examined

EPILOG = """\
Examples:
  bnbenv report                    of the active environment, to paste into an issue
  bnbenv report qlora > report.md

User names, home directories, host names, addresses, mail addresses, tokens and keys are taken out.
Read it before you paste it: what a package or a directory is called stays.
"""

# Variables whose values decide what is loaded; of all others not even the names are told.
_VARIABLES = (
    "BNB_", "BITSANDBYTES_", "CUDA_", "HIP_", "ROCR_", "HSA_", "ROCM_", "NVIDIA_VISIBLE", "LD_LIBRARY_PATH",
    "LD_PRELOAD", "PYTHONPATH", "PYTHONHOME", "PYTHONNOUSERSITE", "VIRTUAL_ENV", "CONDA_PREFIX",
    "HF_HUB_OFFLINE", "TORCH_", "PYTORCH_",
)  # fmt: skip
_LONGEST = 300  # characters of a value
_LOGS = 3


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_environment(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Write it."""
    from bnbenv.cli.anonymous import anonymous
    from bnbenv.machine.probe import probe
    from bnbenv.workflows.doctor import examine
    from bnbenv.workflows.environment import heal_interrupted, locate

    located = locate(args.env, os.environ, Path.cwd())
    heal_interrupted(located, ui, os.environ)
    ui.say(f"environment: {located}")
    examined = examine(located, ui, os.environ, cwd=Path.cwd())
    host = probe(environ=os.environ)
    names = (host.target.name,) if host.target.name != "localhost" else ()
    parts = [
        *_head(examined),
        *_findings(examined),
        *_machine(host),
        *_surroundings(os.environ),
        *_runs(os.environ),
    ]
    text = "\n".join([anonymous("\n".join(parts), os.environ, hosts=names), *_packages(examined)])
    return Outcome(data={"report": text, "healthy": examined.healthy}, text=text, document=True)


def _head(examined: Examined) -> Iterable[str]:
    import platform

    from bnbenv import __version__

    torch = examined.torch
    yield from ("### bnbenv report", "")
    yield from _table(
        [
            ("bnbenv", f"{__version__}, matrix {examined.matrix}, on Python {platform.python_version()}"),
            ("environment", f"{examined.located.kind}: {examined.located.directory}"),
            ("python", str(examined.installed.python)),
            ("torch", torch.full_version if torch is not None else "none"),
            (
                "torch's CUDA, HIP, XPU",
                ", ".join(str(it or "none") for it in (torch.cuda, torch.hip, torch.xpu))
                if torch
                else "none",
            ),
            ("bitsandbytes", f"{examined.bitsandbytes or 'none'}, loads {examined.library or 'no library'}"),
            ("last self-test", examined.verdict or "none"),
        ]
    )


def _findings(examined: Examined) -> Iterable[str]:
    yield from ("", "**Findings**" if examined.findings else "**No findings**", "")
    for found in examined.findings:
        yield f"- {found.severity} `{found.code}`: {found.summary}"
        yield from (f"  - {line}" for line in found.evidence)


def _machine(host: Host) -> Iterable[str]:
    target = host.target
    yield from ("", "**Machine**", "")
    libc = f"{target.libc.family} {target.libc.version}" if target.libc else "none"
    rows = [
        ("system", f"{target.os} {target.arch}, {libc}{', WSL2' if target.wsl else ''}"),
        ("computes on", target.accelerator),
        ("driver", f"{target.driver or 'none'} ({host.driver_state})"),
    ]
    rows += [
        (
            "GPU",
            f"{gpu.name}, {gpu.compute_capability or gpu.gfx or 'capability unknown'}, {gpu.memory_mib} MiB",
        )
        for gpu in target.gpus
    ]
    rows += [("traces", "; ".join(host.gpu_traces))] if host.gpu_traces else []
    rows += [
        (name, str(value)) for name, value in (("container", host.container), ("slurm", host.slurm)) if value
    ]
    yield from _table(rows)


def _surroundings(environ: Mapping[str, str]) -> Iterable[str]:
    rows = [(name, environ[name][:_LONGEST]) for name in sorted(environ) if name.startswith(_VARIABLES)]
    yield from ("", "**Variables**" if rows else "**No variables that matter**", "")
    yield from _table(rows)


def _runs(environ: Mapping[str, str]) -> Iterable[str]:
    """What bnbenv started lately, and how that ended."""
    from bnbenv.env.layout import Layout
    from bnbenv.workflows.belongings import run_logs

    for path in run_logs(Layout.find(environ).runs)[-_LOGS:]:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        yield from ("", "**Run**", "", "```", *text.replace("```", "'''").splitlines()[:40], "```")


def _packages(examined: Examined) -> Iterable[str]:
    """Names and versions, which tell of nobody; kept apart, since a version may look like an address."""
    versions = examined.installed.versions
    yield from ("", f"<details><summary>{counted(len(versions), 'package')}</summary>", "", "```")
    yield from (f"{_plain(name)} {_plain(version)}" for name, version in sorted(versions.items()))
    yield from ("```", "", "</details>")


def _plain(text: str) -> str:
    import re

    return text if re.fullmatch(r"[\w.+!-]{1,80}", text) else "?"


def _table(rows: Iterable[tuple[str, Any]]) -> Iterable[str]:
    for name, value in rows:
        yield f"- {name}: {value}"
