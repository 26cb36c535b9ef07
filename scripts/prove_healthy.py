"""Makes healthy environments in many ways, and shows that doctor finds nothing in them but notices.

Each is really made, by the installer that its name says. That it is healthy is told by others before doctor
is asked: bnbenv's own have passed their self-test, uv finds every requirement met, and one of each kind
imports torch and bitsandbytes. What could not be made here is built from the documented format and says
``constructed``; what needs an installer that is not here is left out, and says why.

    python scripts/prove_healthy.py              # all of them; resumes where it stopped
    python scripts/prove_healthy.py --sample 7   # one, chosen by a number
    python scripts/prove_healthy.py --only NAME  # one, by name
    python scripts/prove_healthy.py --fast       # without those that need a CUDA build of torch (3 GB each)
    python scripts/prove_healthy.py --check      # is the recorded proof still about this code?
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _proof

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "prove_healthy"
COVERED = (
    "src/bnbenv/doctor/[cfilmrs]*.py",
    "src/bnbenv/doctor/program.py",
    "src/bnbenv/env/installed.py",
    "src/bnbenv/env/record.py",
    "src/bnbenv/workflows/doctor.py",
    "scripts/prove_healthy.py",
)
LIMIT = 900.0  # seconds for one command
TORCH = "torch==2.13.0"
QLORA = ("transformers==5.23.0", "peft==0.21.2", "accelerate==1.15.0", "trl==1.16.0", "datasets==5.2.0")
OLDER = ("transformers==4.57.1", "peft==0.18.1", "accelerate==1.12.0")
CUDA_TORCH, OLDER_CUDA_TORCH = "torch==2.14.1", "torch==2.8.0"


@dataclass(frozen=True)
class Ground:
    """Where one environment is made, and by which tools."""

    root: Path

    @property
    def env(self) -> Path:
        """Its directory."""
        return self.root / "env"

    @cached_property
    def uv(self) -> str:
        """The uv that bnbenv brings."""
        from uv import find_uv_bin

        return find_uv_bin()

    def run(self, *words: str | Path, cwd: Path | None = None, **variables: str) -> str:
        """Run a command; its output.

        Raises:
            SystemExit: it failed.
        """
        kept = {
            name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}
        }
        done = subprocess.run(
            [str(word) for word in words],
            env={**kept, **variables},
            cwd=cwd or self.root,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )
        if done.returncode != 0:
            raise RuntimeError(f"`{' '.join(map(str, words))[:200]}`: {(done.stderr or done.stdout)[-800:]}")
        return done.stdout

    def python(self, environment: Path | None = None) -> Path:
        """The interpreter of an environment."""
        return (environment or self.env) / "bin" / "python"

    def venv(self, *options: str, path: Path | None = None) -> None:
        """Make one with uv."""
        self.run(self.uv, "venv", *options, "--python", sys.executable, "--no-project", path or self.env)

    def install(self, *requirements: str, options: tuple[str, ...] = (), python: Path | None = None) -> None:
        """Install with uv; torch from the wheelhouse that pip is configured with, where there is one."""
        links = [word for place in find_links() for word in ("--find-links", place)]
        self.run(
            self.uv, "pip", "install", "--python", python or self.python(), *links, *options, *requirements
        )

    def create(self, *words: str) -> None:
        """Make one with bnbenv, under a home of its own."""
        self.run(
            sys.executable,
            "-m",
            "bnbenv",
            "create",
            *words,
            "--yes",
            "--cpu",
            BNBENV_HOME=str(self.root / "home"),
        )

    def source(self, name: str, *, flat: bool) -> Path:
        """A small project to be installed as editable."""
        project = self.root / name
        package = project / name if flat else project / "src" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("VALUE = 1\n", encoding="utf-8")
        (project / "pyproject.toml").write_text(
            f'[project]\nname = "{name}"\nversion = "1.0"\n'
            '[build-system]\nrequires = ["setuptools>=64"]\nbuild-backend = "setuptools.build_meta"\n',
            encoding="utf-8",
        )
        return project


def find_links() -> list[str]:
    """The wheelhouses of pip's configuration."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    lines = [
        line.partition("=")[2].strip().strip("'") for line in told.splitlines() if ".find-links=" in line
    ]
    return sorted({place for line in lines for place in line.split()})


def _uv(
    *requirements: str, options: tuple[str, ...] = (), venv: tuple[str, ...] = ()
) -> Callable[[Ground], None]:
    def make(ground: Ground) -> None:
        ground.venv(*venv)
        ground.install(*requirements, options=options)

    return make


def _pip(*requirements: str, options: tuple[str, ...] = ()) -> Callable[[Ground], None]:
    def make(ground: Ground) -> None:
        ground.run(sys.executable, "-m", "venv", *options, ground.env)
        ground.run(ground.python(), "-m", "pip", "install", "--quiet", *requirements)

    return make


def _shared_files(ground: Ground) -> None:
    """Two packages that bring the same files: the one that came last is the one that is imported."""
    _uv(TORCH, "bitsandbytes==0.50.2", "opencv-python-headless", "numpy")(ground)
    ground.install("--no-deps", "opencv-python")


def _virtualenv(ground: Ground) -> None:
    ground.run(ground.uv, "tool", "run", "virtualenv", "--python", sys.executable, ground.env)
    ground.run(ground.python(), "-m", "pip", "install", "--quiet", TORCH, "bitsandbytes==0.50.2")


def _editable(*, flat: bool) -> Callable[[Ground], None]:
    def make(ground: Ground) -> None:
        _uv(TORCH, "bitsandbytes==0.50.2", *QLORA)(ground)
        ground.install("-e", str(ground.source("mine", flat=flat)))

    return make


def _editable_by_pip(ground: Ground) -> None:
    _pip(TORCH, "bitsandbytes==0.50.2")(ground)
    ground.run(ground.python(), "-m", "pip", "install", "--quiet", "-e", ground.source("mine", flat=True))


def _project(ground: Ground) -> None:
    """A project of uv's, installed into it as editable."""
    project = ground.source("mine", flat=False)
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    text = text.replace(
        'version = "1.0"',
        f'version = "1.0"\nrequires-python = ">=3.10"\ndependencies = ["{TORCH}", "bitsandbytes==0.50.2"]',
    )
    (project / "pyproject.toml").write_text(text, encoding="utf-8")
    links = [word for place in find_links() for word in ("--find-links", place)]
    ground.run(ground.uv, "venv", "--python", sys.executable, "--no-project", ground.env)
    ground.run(ground.uv, "pip", "install", "--python", ground.python(), *links, "-e", project)


def _ours(*words: str) -> Callable[[Ground], None]:
    def make(ground: Ground) -> None:
        ground.create(*words, "--path", str(ground.env))

    return make


def _ours_with_more(ground: Ground) -> None:
    """What a user adds is no fault."""
    ground.create("qlora", "--path", str(ground.env))
    ground.install("einops==0.8.1", "scipy")


def _upon_base(ground: Ground) -> None:
    base = ground.root / "base"
    ground.venv(path=base)
    ground.install(TORCH, "numpy", python=ground.python(base))
    ground.create("qlora", "--path", str(ground.env), "--base", str(ground.python(base)))


def _prefix(ground: Ground) -> None:
    """A Python of its own, not a venv: a copy of the one that runs this."""
    source = Path(sys.base_prefix)
    shutil.copytree(source, ground.env, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "test"))
    site = next((ground.env / "lib").glob("python3*/site-packages"))
    shutil.rmtree(site)
    site.mkdir()
    python = ground.env / "bin" / "python"
    python.unlink(missing_ok=True)
    python.symlink_to(f"python{sys.version_info[0]}.{sys.version_info[1]}")
    for command in (ground.env / "bin").iterdir():
        if command.is_file() and not command.name.startswith("python"):
            command.unlink()  # it would run the Python that was copied, and doctor would rightly say so


def _system(ground: Ground) -> None:
    _prefix(ground)
    ground.install(TORCH, "bitsandbytes==0.50.2", options=("--break-system-packages",))


def _conda(*requirements: str) -> Callable[[Ground], None]:
    """A Python of its own with conda's records beside it, some packages marked as conda's."""

    def make(ground: Ground) -> None:
        _prefix(ground)
        ground.install(*requirements, options=("--break-system-packages",))
        site = next((ground.env / "lib").glob("python3*/site-packages"))
        records = ground.env / "conda-meta"
        records.mkdir()
        version = ".".join(map(str, sys.version_info[:3]))
        for name, number, build in (("python", version, "h955ad1f_0"), ("openssl", "3.0.15", "h5eee18b_0")):
            record = {"name": name, "version": number, "build": build, "channel": "defaults", "files": []}
            (records / f"{name}-{number}-{build}.json").write_text(json.dumps(record), encoding="utf-8")
        (records / "history").write_text(
            "==> 2026-11-25 12:00:00 <==\n# cmd: conda create -n a\n", encoding="utf-8"
        )
        for info in (*site.glob("numpy-*.dist-info"), *site.glob("markupsafe-*.dist-info")):
            (info / "INSTALLER").unlink()  # never written into: the file is uv's cache's too
            (info / "INSTALLER").write_text("conda\n", encoding="utf-8")

    return make


CONDA = ("conda", "mamba", "micromamba")


def _no_conda() -> str | None:
    """Why an environment cannot be made by conda itself."""
    client = next((path for name in CONDA if (path := shutil.which(name))), None)
    if client is None:
        return f"none of {', '.join(CONDA)} is here"
    try:
        search = [client, "create", "--dry-run", "--yes", "--name", "bnbenv-try", "python"]
        tried = subprocess.run(search, capture_output=True, text=True, check=False, timeout=LIMIT)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"`{client}` does not answer: {error}"
    return None if tried.returncode == 0 else f"`{client}` reaches no channel"


def _conda_itself(ground: Ground) -> None:
    client = next(path for name in CONDA if (path := shutil.which(name)))
    minor = ".".join(map(str, sys.version_info[:2]))
    ground.run(client, "create", "--yes", "--prefix", ground.env, f"python={minor}", "pip", "numpy")
    ground.run(ground.python(), "-m", "pip", "install", "--quiet", TORCH, "bitsandbytes==0.50.2")


def _behind_a_link(ground: Ground) -> None:
    real = ground.root / "elsewhere"
    ground.env.symlink_to(real)
    ground.venv(path=real)
    ground.install(TORCH, "bitsandbytes==0.50.2", python=ground.python(real))


@dataclass(frozen=True)
class Case:
    """One way to a healthy environment.

    Attributes:
        how: what made it.
        imports: torch and bitsandbytes are imported as well.
        joined: part of it stands elsewhere, where uv's check does not look.
        absent: why it cannot be made here.
    """

    how: str
    make: Callable[[Ground], None]
    imports: bool = False
    slow: bool = False
    joined: bool = False
    absent: Callable[[], str | None] = lambda: None


CASES: dict[str, Case] = {
    "bnbenv": Case("bnbenv create", _ours("qlora")),
    "bnbenv-copied": Case("bnbenv create --link-mode copy", _ours("qlora", "--link-mode", "copy")),
    "bnbenv-plain": Case("bnbenv create --no-generations", _ours("qlora", "--no-generations")),
    "bnbenv-with-additions": Case("bnbenv create, then uv pip install", _ours_with_more),
    "bnbenv-upon-base": Case("bnbenv create --base", _upon_base, imports=True, joined=True),
    "uv": Case("uv, hard links", _uv(TORCH, "bitsandbytes==0.50.2"), imports=True),
    "uv-copied": Case("uv, copies", _uv(TORCH, "bitsandbytes==0.50.2", options=("--link-mode", "copy"))),
    "uv-qlora": Case("uv, hard links", _uv(TORCH, "bitsandbytes==0.50.2", *QLORA)),
    "uv-compiled": Case("uv, byte code", _uv(TORCH, "bitsandbytes==0.50.2", options=("--compile-bytecode",))),
    "uv-seeded": Case("uv venv --seed", _uv(TORCH, "bitsandbytes==0.50.2", venv=("--seed",))),
    "uv-relocatable": Case(
        "uv venv --relocatable", _uv(TORCH, "bitsandbytes==0.50.2", venv=("--relocatable",))
    ),
    "uv-system-site": Case(
        "uv venv --system-site-packages", _uv(TORCH, "bitsandbytes==0.50.2", venv=("--system-site-packages",))
    ),
    "uv-0.49.2": Case("uv", _uv(TORCH, "bitsandbytes==0.49.2", *QLORA)),
    "uv-0.48.2-older-set": Case("uv", _uv(TORCH, "bitsandbytes==0.48.2", *OLDER)),
    "uv-0.47.0-older-set": Case("uv", _uv(TORCH, "bitsandbytes==0.47.0", *OLDER)),
    "uv-0.49.0": Case("uv", _uv(TORCH, "bitsandbytes==0.49.0"), imports=True),
    "uv-editable-src": Case("uv, an editable project", _editable(flat=False)),
    "uv-editable-flat": Case("uv, an editable project", _editable(flat=True)),
    "uv-project": Case("uv, an editable project that asks for torch", _project),
    "uv-shared-files": Case("uv, two packages that bring the same files", _shared_files),
    "uv-behind-a-link": Case("uv, the directory is a link", _behind_a_link, imports=True),
    "pip": Case("venv and pip", _pip(TORCH, "bitsandbytes==0.50.2"), imports=True),
    "pip-qlora": Case("venv and pip", _pip(TORCH, "bitsandbytes==0.50.2", *QLORA)),
    "pip-editable": Case("venv and pip, an editable project", _editable_by_pip),
    "virtualenv-pip": Case("virtualenv and pip", _virtualenv),
    "system": Case("a Python of its own and uv", _system, imports=True),
    "conda": Case("constructed: conda's records", _conda(TORCH, "bitsandbytes==0.50.2"), imports=True),
    "conda-qlora": Case("constructed: conda's records", _conda(TORCH, "bitsandbytes==0.50.2", *QLORA)),
    "conda-itself": Case("conda and pip", _conda_itself, imports=True, absent=_no_conda),
    "uv-cuda": Case(
        "uv, a CUDA build", _uv(CUDA_TORCH, "bitsandbytes==0.50.2", *QLORA), slow=True, imports=True
    ),
    "uv-cuda-older-set": Case(
        "uv, a CUDA build", _uv(OLDER_CUDA_TORCH, "bitsandbytes==0.47.0", *OLDER), slow=True, imports=True
    ),
}


def one(name: str, root: Path) -> dict[str, Any]:
    """Make an environment, import in it, and ask doctor."""
    case = CASES[name]
    with tempfile.TemporaryDirectory(prefix="bnbenv-healthy-", dir=root) as scratch:
        ground = Ground(root=Path(scratch).resolve())
        row: dict[str, Any] = {"how": case.how, "problem": None, "found": [], "packages": 0}
        if reason := case.absent():
            return {**row, "skipped": reason}
        try:
            case.make(ground)
            if not case.joined:
                ground.run(ground.uv, "pip", "check", "--python", ground.python())
            if case.imports:
                ground.run(ground.python(), "-c", "import torch, bitsandbytes", HF_HUB_OFFLINE="1")
            data = ask(ground)
        except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
            row["problem"] = f"{type(error).__name__}: {error}"[:600]
            return row
        row["packages"] = len(data["installed"]["packages"])
        row["kind"] = data["environment"]["kind"]
        row["torch"], row["bitsandbytes"] = data["installed"]["torch"], data["installed"]["bitsandbytes"]
        row["found"] = [
            f"{it['code']}: {it['summary']}" for it in data["findings"] if it["severity"] != "info"
        ]
        row["notices"] = sorted({it["code"] for it in data["findings"] if it["severity"] == "info"})
        if not data["healthy"] and not row["found"]:
            row["problem"] = "not healthy, and nothing found"
        return row


def ask(ground: Ground) -> dict[str, Any]:
    """The ``data`` of doctor, from a directory that holds nothing."""
    empty = ground.root / "empty"
    empty.mkdir()
    words = [sys.executable, "-m", "bnbenv", "doctor", str(ground.env), "--json"]
    done = subprocess.run(
        words,
        cwd=empty,
        env={**os.environ, "BNBENV_HOME": str(ground.root / "home")},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    answer = json.loads(done.stdout)
    if answer["status"] == "error":
        raise RuntimeError(str(answer["problems"]))
    data: dict[str, Any] = answer["data"]
    return data


def timed(name: str, root: Path) -> tuple[dict[str, Any], float]:
    """The same, with the seconds it took."""
    started = time.monotonic()
    return one(name, root), time.monotonic() - started


def missed(row: dict[str, Any]) -> bool:
    """Whether an environment could not be made, or something was found in it."""
    return bool(row["problem"] or row["found"])


def main() -> int:
    """Run the proof; exit 1 if anything was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, metavar="N", help="one, chosen by N")
    parser.add_argument("--only", metavar="NAME", action="append", help="one, by name; repeat")
    parser.add_argument("--fast", action="store_true", help="without those that need a CUDA build of torch")
    parser.add_argument(
        "--jobs", type=int, default=2, metavar="N", help="environments at a time (default: 2)"
    )
    parser.add_argument("--check", action="store_true", help="only say whether the recorded proof stands")
    options = parser.parse_args()
    if options.check:
        reasons = _proof.check(NAME, COVERED)
        print("\n".join(reasons) or f"{NAME}: the recorded proof stands")
        return 1 if reasons else 0
    names = [
        name
        for name, case in CASES.items()
        if not (case.slow and (options.fast or options.sample is not None))
    ]
    if options.only:
        names = options.only
    elif options.sample is not None:
        names = [random.Random(options.sample).choice(names)]
    recorded = not (options.only or options.fast or options.sample is not None)
    proof = _proof.resume(NAME, COVERED) if recorded else _proof.Proof(name=NAME, covered={})
    root = Path(tempfile.gettempdir())
    left = [name for name in names if name not in proof.rows or missed(proof.rows[name])]
    with ThreadPoolExecutor(max_workers=options.jobs) as pool:
        waiting = {pool.submit(timed, name, root): name for name in left}
        for done in as_completed(waiting):
            name = waiting[done]
            row, seconds = done.result()
            proof.add(name, row, seconds=seconds)
            told = row["problem"] or "; ".join(row["found"]) or f"healthy ({row['packages']} packages)"
            told = f"skipped: {row['skipped']}" if "skipped" in row else told
            print(f"{name:24} {seconds:6.1f} s  {told}", flush=True)
            if recorded:
                _proof.save(proof)
    proof.misses = sorted(name for name, row in proof.rows.items() if missed(row))
    made = sum("skipped" not in row for row in proof.rows.values())
    proof.counts = {
        "environments": made,
        "healthy": made - len(proof.misses),
        "skipped": len(proof.rows) - made,
    }
    if recorded:
        proof.complete = len(proof.rows) == len(CASES)
        proof.circumstances = {"python": ".".join(map(str, sys.version_info[:3])), "gpu": "none"}
        _proof.save(proof)
    print(
        f"{proof.counts['healthy']} of {proof.counts['environments']} healthy environments without a finding"
    )
    return 1 if proof.misses else 0


if __name__ == "__main__":
    raise SystemExit(main())
