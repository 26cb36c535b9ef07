"""Measures what guides only claim: which quantisation packages can stand beside bitsandbytes.

For each combination: does uv find versions; can it be installed; does every package import; and do LoRA
adapters of peft work beside it, on a 4-bit layer and on a layer that is not quantised (which is where peft
looks at what else is installed). All of it on the processor, with a CPU build of torch where pip's
configuration knows one; where a package asks for a newer torch, with PyPI's CUDA build and its gigabytes.

    python scripts/measure_coexistence.py [--write] [--only NAME]… [--keep DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from _refresh import COMPAT, held_rows, run, settle_rows, today
from bnbenv.errors import BnbenvError
from bnbenv.matrix.rows import Coexistence, Provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnbenv.install.sources import Sources
    from bnbenv.install.uv import Uv

PATH = COMPAT / "coexistence.json"
PYTHON = "3.11"
_LIMIT = 600  # seconds a step


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One combination.

    Attributes:
        packages: requirements, those of the profile and those in question.
        asked: the packages in question, by their names on the index.
        modules: what to import.
    """

    name: str
    packages: tuple[str, ...]
    asked: tuple[str, ...]
    modules: tuple[str, ...] = ()


_NEW = (
    "torch==2.13.0",
    "bitsandbytes>=0.50.2",
    "transformers>=5.21,<5.24",
    "peft>=0.21,<0.22",
    "accelerate>=1.15",
)
_FREE = ("bitsandbytes>=0.50.2", "transformers>=5.15,<6", "peft>=0.21,<0.22", "accelerate>=1.10")
_OLD = ("torch==2.13.0", "bitsandbytes==0.49.2", "transformers==4.57.6", "peft==0.17.1", "accelerate==1.10.1")


def _with(base: Sequence[str], **exact: str) -> tuple[str, ...]:
    """The base with some packages in other versions."""
    return tuple(
        f"{name}{exact[name]}" if (name := line.partition("=")[0].partition(">")[0]) in exact else line
        for line in base
    )


CASES: tuple[Case, ...] = (
    Case(name="nothing else", packages=_NEW, asked=()),
    Case(name="nothing else, transformers 4.57", packages=_OLD, asked=()),
    Case(name="autoawq", packages=(*_NEW, "autoawq>=0.2.9"), asked=("autoawq",), modules=("awq",)),
    Case(
        name="autoawq, transformers 4.57",
        packages=(*_OLD, "autoawq>=0.2.9"), asked=("autoawq",), modules=("awq",),
    ),
    Case(
        name="auto-gptq",
        packages=(*_NEW, "auto-gptq>=0.7.1"), asked=("auto-gptq",), modules=("auto_gptq",),
    ),
    Case(
        name="auto-gptq, transformers 4.57",
        packages=(*_OLD, "auto-gptq>=0.7.1"), asked=("auto-gptq",), modules=("auto_gptq",),
    ),
    Case(
        name="gptqmodel",
        packages=(*_FREE, "torch>=2.13", "gptqmodel>=7.7,<8"), asked=("gptqmodel",), modules=("gptqmodel",),
    ),
    Case(
        name="gptqmodel and optimum",
        packages=(*_FREE, "torch>=2.13", "gptqmodel>=7.7,<8", "optimum>=2.3"),
        asked=("gptqmodel", "optimum"), modules=("gptqmodel", "optimum"),
    ),
    Case(
        name="gptqmodel 5.6 without optimum",
        packages=(*_with(_NEW, transformers=">=5.0", peft=">=0.18"), "gptqmodel>=5,<5.6.12"),
        asked=("gptqmodel",), modules=("gptqmodel",),
    ),
    Case(
        name="gptqmodel of torch 2.13",
        packages=(*_with(_NEW, transformers=">=5.0"), "gptqmodel>=5"),
        asked=("gptqmodel",), modules=("gptqmodel",),
    ),
    Case(name="torchao 0.15", packages=(*_NEW, "torchao==0.15.0"), asked=("torchao",), modules=("torchao",)),
    Case(name="torchao 0.18", packages=(*_NEW, "torchao==0.18.0"), asked=("torchao",), modules=("torchao",)),
    Case(
        name="torchao 0.18, peft 0.18.0",
        packages=(*_with(_NEW, peft="==0.18.0", transformers=">=5.0"), "torchao==0.18.0"),
        asked=("torchao",), modules=("torchao",),
    ),
    Case(name="hqq", packages=(*_NEW, "hqq>=0.2.8"), asked=("hqq",), modules=("hqq",)),
    Case(
        name="optimum-quanto",
        packages=(*_NEW, "optimum-quanto>=0.2.7"), asked=("optimum-quanto",), modules=("optimum.quanto",),
    ),
    Case(
        name="llmcompressor",
        packages=(*_NEW, "llmcompressor>=0.14"), asked=("llmcompressor",), modules=("llmcompressor",),
    ),
    Case(
        name="llmcompressor, transformers free",
        packages=(*_with(_FREE, peft=">=0.18"), "torch==2.13.0", "llmcompressor>=0.14"),
        asked=("llmcompressor",), modules=("llmcompressor",),
    ),
    # PyPI's own build, since PyPI's torchvision, which vllm asks for, does not load beside a CPU build.
    Case(
        name="vllm",
        packages=(*_with(_NEW, torch="===2.13.0"), "vllm>=0.30"), asked=("vllm",), modules=("vllm",),
    ),
    Case(
        name="vllm, transformers free",
        packages=(*_FREE, "torch>=2.14", "vllm>=0.30"), asked=("vllm",), modules=("vllm",),
    ),
    Case(
        name="vllm and llmcompressor",
        packages=(*_FREE, "vllm>=0.30", "llmcompressor>=0.14"),
        asked=("vllm", "llmcompressor"), modules=("vllm", "llmcompressor"),
    ),
    Case(
        name="gptqmodel and vllm",
        packages=(*_FREE, "gptqmodel>=7.7,<8", "vllm>=0.33"),
        asked=("gptqmodel", "vllm"), modules=("gptqmodel", "vllm"),
    ),
    Case(
        name="gptqmodel and llmcompressor",
        packages=(*_FREE, "torch>=2.13", "gptqmodel>=7.7,<8", "llmcompressor>=0.14"),
        asked=("gptqmodel", "llmcompressor"), modules=("gptqmodel", "llmcompressor"),
    ),
    Case(
        name="exllamav2",
        packages=(*_NEW, "exllamav2>=0.3.2"), asked=("exllamav2",), modules=("exllamav2",),
    ),
)  # fmt: skip

_SHOWN = ("torch", "bitsandbytes", "transformers", "peft", "optimum")

# One adapter on one layer: unchanged at first, then trained by one step. argv: the layer's name.
_LAYER = """
import sys
import torch, bitsandbytes
from torch import nn
from peft import LoraConfig, get_peft_model
torch.manual_seed(0)
class Tiny(nn.Module):
    is_loaded_in_4bit = True
    def __init__(self):
        super().__init__()
        self.quantised = bitsandbytes.nn.Linear4bit(
            128, 128, bias=False, compute_dtype=torch.float32, quant_type="nf4"
        )
        self.plain = nn.Linear(128, 64)
    def forward(self, x):
        return self.plain(torch.tanh(self.quantised(x)))
model = Tiny().to("cpu").train()
x = torch.randn(8, 128, requires_grad=True)
before = model(x).detach()
model = get_peft_model(model, LoraConfig(r=4, target_modules=[sys.argv[1]], lora_dropout=0.0))
after = model(x)
assert torch.allclose(before, after, atol=1e-5), "an untrained adapter changes the output"
optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
after.square().mean().backward()
optimiser.step()
moved = (model(x) - before).abs().max().item()
assert 0 < moved < float("inf"), f"a step moves the output by {moved}"
"""


@dataclass(slots=True)
class Laboratory:
    """Where combinations are tried: uv, the user's indexes, and a directory for the environments."""

    uv: Uv
    sources: Sources
    directory: Path
    environ: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def try_out(self, case: Case) -> Coexistence:
        """Take one combination as far as it goes."""
        place = self.directory / case.name.replace(" ", "-").replace(",", "")
        place.mkdir(parents=True, exist_ok=True)
        versions, words = self._resolve(case, place)
        facts: dict[str, str] = {"resolves": "yes" if versions else "no"}
        note = words
        if versions:
            python, words = self._install(place)
            facts["installs"], note = ("yes" if python else "no"), words
            if python:
                facts |= self._run(case, python)
                note = facts.pop("note", "")
        return Coexistence(
            name=case.name,
            packages={name: versions.get(name, "") for name in case.asked},
            beside={name: versions[name] for name in _SHOWN if name in versions and name not in case.asked},
            note=note,
            provenance=Provenance(
                how="measured",
                source=f"scripts/measure_coexistence.py, Python {PYTHON}, {platform.system()} "
                f"{platform.machine()}, no GPU",
                checked=today(),
            ),
            **facts,  # type: ignore[arg-type]  # literals
        )

    def _resolve(self, case: Case, place: Path) -> tuple[dict[str, str], str]:
        (place / "wanted.in").write_text("".join(f"{line}\n" for line in case.packages), encoding="utf-8")
        try:
            self._uv(
                "pip", "compile", str(place / "wanted.in"), "--output-file", str(place / "locked.txt"),
                "--python-version", PYTHON, "--no-header", "--no-annotate", "--quiet",
            )  # fmt: skip
        except BnbenvError as problem:
            return {}, _short(problem.message)
        lines = (place / "locked.txt").read_text(encoding="utf-8").splitlines()
        return dict(
            line.split("==") for line in lines if "==" in line and not line.startswith(("#", " "))
        ), ""

    def _install(self, place: Path) -> tuple[Path | None, str]:
        python = place / "venv" / "bin" / "python"
        # `==2.13.0` would let `2.13.0+cpu` in, which is another build.
        locked = (place / "locked.txt").read_text(encoding="utf-8")
        (place / "exact.txt").write_text(locked.replace("==", "==="), encoding="utf-8")
        try:
            self._uv("venv", str(place / "venv"), "--python", PYTHON, "--quiet", "--clear")
            self._uv("pip", "install", "--requirements", str(place / "exact.txt"), "--python", str(python))
        except BnbenvError as problem:
            return None, _short(_last_error(problem.message))
        return python, ""

    def _run(self, case: Case, python: Path) -> dict[str, str]:
        said: list[str] = []
        facts = {}
        for fact, arguments in (
            (
                "imports",
                ["-c", "".join(f"import {name}\n" for name in ("bitsandbytes", "peft", *case.modules))],
            ),
            ("quantised_layer", ["-c", _LAYER, "quantised"]),
            ("other_layer", ["-c", _LAYER, "plain"]),
        ):
            words = self._python(python, arguments)
            facts[fact] = "no" if words else "yes"
            if words and words not in said:
                said.append(words)
        return {**facts, "note": "; ".join(said)}

    def _python(self, python: Path, arguments: list[str]) -> str:
        """Run; the last line of the error, or nothing."""
        try:
            done = subprocess.run(
                [str(python), "-I", "-B", *arguments],
                capture_output=True,
                text=True,
                timeout=_LIMIT,
                check=False,
                env={**self.environ, "HF_HUB_OFFLINE": "1"},
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {_LIMIT} s"
        if done.returncode == 0:
            return ""
        return _short((done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1])

    def _uv(self, *arguments: str) -> None:
        from bnbenv.install.uv_files import uv_variables, uv_workspace

        with uv_workspace(self.sources) as settings:
            self.uv.run(
                [*arguments, "--config-file", str(settings / "uv.toml")],
                environ=self.environ,
                extra=uv_variables(self.sources, self.environ),
            )


def _last_error(text: str) -> str:
    """The line of a traceback that names the error; all of the text where there is none."""
    named: list[str] = re.findall(r"^\s*([\w.]+(?:Error|Exception): .+)$", text, re.MULTILINE)
    return (named or [text])[-1]


def _short(text: str, limit: int = 400) -> str:
    """One line without the paths of this machine."""
    words = re.sub(r"[~/]\S*/(?:site-packages|python\d[\d.]*)/", "", " ".join(text.split()))
    return words if len(words) <= limit else words[: limit - 1] + "…"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the file")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="measure this one only")
    parser.add_argument("--keep", metavar="DIR", help="put the environments here, and leave them")
    options = parser.parse_args()
    from bnbenv.install.sources import read_sources
    from bnbenv.install.uv import find_uv

    unknown = set(options.only) - {case.name for case in CASES}
    if unknown:
        parser.error(f"there is no case {', '.join(sorted(unknown))}")
    held = {row.name: row for row in held_rows("coexistence", PATH)[0]}
    with tempfile.TemporaryDirectory(prefix="coexistence-") as scratch:
        laboratory = Laboratory(
            uv=find_uv(os.environ),
            sources=read_sources(environ=os.environ, cwd=Path.cwd(), home=Path.home()),
            directory=Path(options.keep or scratch),
        )
        for case in CASES:
            if options.only and case.name not in options.only:
                continue
            row = held[case.name] = laboratory.try_out(case)
            print(
                json.dumps({"name": row.name, **_facts(row), "note": row.note}), file=sys.stderr, flush=True
            )
    names = {case.name for case in CASES}
    return settle_rows(
        "coexistence", PATH, [row for row in held.values() if row.name in names], write=options.write
    )


def _facts(row: Coexistence) -> dict[str, str]:
    return {
        name: getattr(row, name)
        for name in ("resolves", "installs", "imports", "quantised_layer", "other_layer")
    }


if __name__ == "__main__":
    run(main)
