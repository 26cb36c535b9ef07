"""Does to an environment what users do to theirs, with real pip and real uv, with and without the guard.

Each accident says beforehand what must come of it: `refused`, with the environment unharmed, or `found`: it
goes through, the doctor finds it at once and a repair mends it. Without the guard the same command is run in
a plain copy of the environment; where it would fetch gigabytes, pip and uv only say what they would do.

    python scripts/prove_guard.py               # all accidents; resumes where it stopped
    python scripts/prove_guard.py --sample 7    # two of them, chosen by a number
    python scripts/prove_guard.py --check       # is the recorded proof still about this code?
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent))
import _proof
from bnbenv.env.installed import read_installed
from bnbenv.env.record import check_record
from bnbenv.lockfile import pylock

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "prove_guard"
COVERED = (
    "src/bnbenv/env/guard.py",
    "src/bnbenv/env/guard_script.py",
    "src/bnbenv/workflows/guard.py",
    "src/bnbenv/judge/hazards.py",
    "scripts/prove_guard.py",
)
LIMIT = 600.0  # seconds for one command
AT_LEAST = 10  # accidents that must be refused
OLD = "0.45.0"  # a release of bitsandbytes that installs and is not the locked one


@dataclass(frozen=True, slots=True, kw_only=True)
class Accident:
    """One thing that users do.

    Attributes:
        command: the words; `{old}`, `{wheels}`, `{project}`, `{app}`, `{environment}` and `{python}` are
            filled in.
        must: what has to come of it.
        variables: what the user has set.
        activated: false for a shell in which the environment is not activated.
        whole: the command can be run without the guard too; else pip and uv say what they would do.
    """

    command: str
    must: Literal["refused", "found"]
    variables: Mapping[str, str] = field(default_factory=dict)
    activated: bool = True
    whole: bool = True


ACCIDENTS: dict[str, Accident] = {
    "upgrade torch": Accident(command="pip install --upgrade torch>=2.14", must="refused", whole=False),
    "force-reinstall, as guides say": Accident(
        command="pip install --upgrade --force-reinstall bitsandbytes", must="refused", whole=False
    ),
    "a known-good release of a guide": Accident(command="pip install bitsandbytes==0.43.3", must="refused"),
    "a package that pins another torch": Accident(
        command="pip install torchvision==0.26.0", must="refused", whole=False
    ),
    "auto-gptq": Accident(command="pip install auto-gptq", must="refused", whole=False),
    "vllm": Accident(command="uv pip install vllm", must="refused", whole=False),
    "an editable install that wants an older torch": Accident(
        command="pip install --editable {project}", must="refused", whole=False
    ),
    "--no-deps": Accident(command="pip install --no-deps bitsandbytes=={old}", must="refused"),
    "another index": Accident(
        command="pip install --no-index --find-links {wheels} bitsandbytes=={old}", must="refused"
    ),
    "a wheel by its address": Accident(command="uv pip install {wheel}", must="refused"),
    "an older transformers": Accident(command="uv pip install transformers==4.46.3", must="refused"),
    "python -m pip": Accident(command="python -m pip install bitsandbytes=={old}", must="refused"),
    "uninstall torch": Accident(command="pip uninstall --yes torch", must="refused"),
    "uv pip sync of a project's requirements": Accident(
        command="uv pip sync {project}/requirements.txt", must="refused"
    ),
    "uv pip behind an option with a value": Accident(
        command="uv --color never pip install bitsandbytes=={old}", must="refused"
    ),
    "uv run of a project in the active environment": Accident(
        command="uv run --active --project {app} python --version", must="refused"
    ),
    "uv sync of a project into it": Accident(
        command="uv sync --project {app}",
        must="refused",
        variables={"UV_PROJECT_ENVIRONMENT": "{environment}"},
    ),
    "uv venv over it": Accident(command="uv venv --clear {environment}", must="refused"),
    "uninstall of what a file names": Accident(
        command="pip uninstall --yes --requirement {project}/gone.txt", must="refused"
    ),
    "uv pip uninstall of what a file names": Accident(
        command="uv pip uninstall --requirements {project}/gone.txt", must="refused"
    ),
    "force-reinstall by short options": Accident(
        command="pip install -UI bitsandbytes", must="refused", whole=False
    ),
    "force-reinstall by a variable": Accident(
        command="pip install bitsandbytes",
        must="refused",
        variables={"PIP_FORCE_REINSTALL": "1"},
        whole=False,
    ),
    "PIP_CONSTRAINT of the user's": Accident(
        command="pip install bitsandbytes=={old}",
        must="refused",
        variables={"PIP_CONSTRAINT": "{project}/mine.txt"},
    ),
    "python -m pip under a PIP_CONSTRAINT of the user's": Accident(
        command="python -m pip install bitsandbytes=={old}",
        must="found",
        variables={"PIP_CONSTRAINT": "{project}/mine.txt"},
    ),
    "uv without activation": Accident(
        command="uv pip install --python {python} bitsandbytes=={old}", must="found", activated=False
    ),
    "python -m pip uninstall": Accident(command="python -m pip uninstall --yes bitsandbytes", must="found"),
}


class Ground:
    """A guarded environment of bnbenv's own, and plain copies of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("VIRTUAL_ENV", "CONDA", "BNBENV", "UV_PROJECT", "PIP_CONSTRAINT"))
        }
        self.environ["BNBENV_HOME"] = str(root / "home")
        self.uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
        self.wheels = root / "wheels"
        self.project = root / "project"
        self.app = root / "app"

    def prepare(self) -> None:
        """Make the environment, the wheel of an old release, and projects that want older releases."""
        # pip and uv replace what they change by new files: hard links to uv's cache are safe from them.
        code, _, said = self.bnbenv("create", "qlora", "--name", "lab", "--yes")
        if code:
            raise SystemExit(f"the environment cannot be made: {said[-2000:]}")
        self.shell(
            [str(self.python), "-m", "pip", "download", "--quiet", "--no-deps", f"bitsandbytes=={OLD}"],
            cwd=self.wheels,
        )
        self.project.mkdir(exist_ok=True)
        (self.project / "pyproject.toml").write_text(
            '[project]\nname = "bnbenv-test-project"\nversion = "1"\ndependencies = ["torch<2.13"]\n'
            '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
            "[tool.setuptools]\npy-modules = []\n",
            encoding="utf-8",
        )
        (self.project / "requirements.txt").write_text("idna\n", encoding="utf-8")
        (self.project / "mine.txt").write_text("idna<99\n", encoding="utf-8")
        (self.project / "gone.txt").write_text("# tidy up\ntorch\n", encoding="utf-8")
        self.app.mkdir(exist_ok=True)
        (self.app / "pyproject.toml").write_text(
            '[project]\nname = "bnbenv-test-app"\nversion = "1"\nrequires-python = ">=3.10"\n'
            'dependencies = ["transformers==4.46.3"]\n',
            encoding="utf-8",
        )

    @property
    def lab(self) -> Path:
        """The current generation."""
        return Path(os.path.realpath(self.root / "home" / "envs" / "lab"))

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.lab / "bin" / "python"

    def plain(self) -> Path:
        """A venv with the same packages and no guard."""
        directory = self.root / "plain"
        lock = self.root / "pylock.toml"
        shutil.copyfile(self.lab / ".bnbenv" / "lock.toml", lock)
        options = ["--quiet", "--no-config"]
        self.shell([self.uv, "venv", "--clear", *options, "--python", str(self.python), str(directory)])
        self.shell(
            [
                self.uv, "pip", "sync", *options, "--preview-features", "pylock",
                "--python", str(directory / "bin" / "python"), str(lock),
            ]
        )  # fmt: skip
        return directory

    def bnbenv(self, *words: str) -> tuple[int, dict[str, Any], str]:
        """Exit code, data, and what was said on stderr."""
        command = [sys.executable, "-m", "bnbenv", *words, "--json"]
        done = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        try:
            data = json.loads(done.stdout)["data"]
        except (ValueError, KeyError):
            data = {}
        return done.returncode, data, done.stderr

    def shell(self, command: list[str], *, cwd: Path | None = None) -> None:
        """Run something that must work."""
        if cwd is not None:
            cwd.mkdir(exist_ok=True)
        subprocess.run(
            command, env=self.environ, cwd=cwd, check=True, timeout=LIMIT, capture_output=True, text=True
        )

    def suffer(self, accident: Accident, directory: Path, *, only_say: bool = False) -> tuple[int, str]:
        """Run the command as the user would, in the environment at `directory`; exit code and words."""
        places = {
            "old": OLD,
            "wheels": str(self.wheels),
            "wheel": next(self.wheels.glob("bitsandbytes-*.whl")).as_uri(),
            "project": str(self.project),
            "app": str(self.app),
            "environment": str(directory),
            "python": str(directory / "bin" / "python"),
        }
        words = [word.format(**places) for word in accident.command.split()]
        env = {**self.environ, **{name: text.format(**places) for name, text in accident.variables.items()}}
        env["PATH"] = os.pathsep.join([str(Path(self.uv).parent), env["PATH"]])
        if accident.activated:
            env["PATH"] = os.pathsep.join([str(directory / "bin"), env["PATH"]])
            env["VIRTUAL_ENV"] = str(directory)
        if only_say:
            words.append("--dry-run")
        program = shutil.which(words[0], path=env["PATH"]) or words[0]
        done = subprocess.run(
            [program, *words[1:]],
            env=env,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def harm(self, directory: Path) -> list[str]:
        """What is not as it was locked, of what the guard answers for."""
        guard = json.loads((self.lab / ".bnbenv" / "guard" / "guard.json").read_text(encoding="utf-8"))
        locked = {it.name: it.version for it in pylock.read(self.lab / ".bnbenv" / "lock.toml").packages}
        installed = read_installed(directory)
        now = installed.versions
        answered = {*guard["held"], *guard["ranges"]}
        found = [
            f"{name} {locked[name]} → {now.get(name, 'gone')}"
            for name in sorted(answered & set(locked))
            if now.get(name) != locked[name]
        ]
        found += [f"{name} {now[name]} came in" for name in sorted(guard["kept_out"]) if name in now]
        found += [f"{fault.package}: {fault.path} {fault.kind}" for fault in check_record(installed)]
        gone = [name for name in locked if name not in now and name not in answered]
        return found + ([f"{len(gone)} further packages gone"] if gone else [])


def one(ground: Ground, name: str) -> dict[str, Any]:
    """One accident, before and with the guard."""
    accident = ACCIDENTS[name]
    plain = ground.plain()
    code, said = ground.suffer(accident, plain, only_say=not accident.whole)
    before = ground.harm(plain) if accident.whole else _announced(said, code)
    code, said = ground.suffer(accident, ground.lab)
    harm = ground.harm(ground.lab)
    hints = re.findall(r"^bnbenv:\s+(?:.*?:\s+)?(bnbenv .*)$", said, re.MULTILINE)
    row: dict[str, Any] = {
        "command": accident.command,
        "must": accident.must,
        "before": before,
        "before_how": "run" if accident.whole else "asked with --dry-run",
        "exit": code,
        "harm": harm,
        "says": hints,
        "found": [],
        "mended": None,
    }
    problems = []
    if accident.must == "refused":
        problems += [f"it was not refused: exit {code}"] if code == 0 else []
        problems += [f"the environment is harmed: {harm}"] if harm else []
    else:
        problems += [] if harm else ["it did no harm, and nothing was to be found"]
    if harm:
        _, examined, _ = ground.bnbenv("doctor", "lab")
        row["found"] = sorted(
            {found["code"] for found in examined.get("findings", ()) if found["severity"] != "info"}
        )
        problems += [] if row["found"] else ["the doctor finds nothing"]
        code, repaired, words = ground.bnbenv("repair", "lab", "--yes")
        left = ground.harm(ground.lab)
        row["mended"] = repaired.get("outcome") == "repaired" and not left
        if not row["mended"]:
            problems.append(f"the repair does not mend it: exit {code}, {left}, {words[-300:]}")
            ground.bnbenv("repair", "lab", "--yes", "--restore")
    row["problems"] = problems
    return row


def _announced(said: str, code: int) -> list[str]:
    """What pip or uv would change, of what matters here; or how they would fail by themselves."""
    if code:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return [f"fails by itself: {lines[-1][:160]}"] if lines else ["fails by itself"]
    # pip names all in one line; uv gives their number in such a line, and one line to each of them.
    names = re.findall(r"^ [+] (\S+)", said, re.MULTILINE)
    would = re.search(r"^Would install (.*)$", said, re.MULTILINE)
    if would and not names:
        names = would[1].split()
    shown = (
        "torch-",
        "torch=",
        "bitsandbytes",
        "transformers",
        "auto_gptq",
        "auto-gptq",
        "vllm",
        "nvidia",
        "triton",
    )
    found = [text.replace("==", "-") for text in names if text.startswith(shown)]
    cuda = [text for text in found if text.startswith("nvidia")]
    rest = [text for text in found if not text.startswith("nvidia")]
    more = [f"{len(cuda)} CUDA packages"] if cuda else []
    return [f"would bring {text}" for text in (*rest, *more)] or ["would change nothing that matters"]


def main() -> int:
    """Run the proof; exit 1 if anything did not come out as announced."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, metavar="N", help="two accidents, chosen by N")
    parser.add_argument("--only", metavar="ACCIDENT", choices=sorted(ACCIDENTS), help="one, by name")
    parser.add_argument("--check", action="store_true", help="only say whether the recorded proof stands")
    options = parser.parse_args()
    if options.check:
        reasons = _proof.check(NAME, COVERED)
        print("\n".join(reasons) or f"{NAME}: the recorded proof stands")
        return 1 if reasons else 0
    recorded = options.sample is None and not options.only
    names = list(ACCIDENTS)
    if options.only:
        names = [options.only]
    elif options.sample is not None:
        names = random.Random(options.sample).sample(names, 2)
    proof = _proof.resume(NAME, COVERED)
    problems: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="bnbenv-guard-", ignore_cleanup_errors=True) as scratch:
        ground = Ground(Path(scratch))
        ground.prepare()
        for name in names:
            if recorded and name in proof.rows:
                continue
            started = time.monotonic()
            row = one(ground, name)
            problems[name] = row["problems"]
            print(f"{name}: {row['problems'] or row['must']}", flush=True)
            if recorded:
                proof.add(name, row, seconds=time.monotonic() - started)
                _proof.save(proof)
        if recorded:
            proof.circumstances = _circumstances(ground)
    if recorded:
        refused = [name for name, row in proof.rows.items() if row["must"] == "refused"]
        proof.misses = [name for name, row in proof.rows.items() if row["problems"]]
        held = [name for name in refused if name not in proof.misses]
        if len(held) < AT_LEAST:
            proof.misses.append(f"only {len(held)} refused")
        proof.counts = {
            "accidents": len(proof.rows),
            "refused, unharmed": len(held),
            "found and mended": sum(bool(row["mended"]) for row in proof.rows.values()),
        }
        proof.complete = set(proof.rows) == set(ACCIDENTS)
        _proof.save(proof)
    failed = proof.misses if recorded else [name for name, found in problems.items() if found]
    print(f"{len(names)} accidents, {len(failed)} that did not come out as announced")
    return 1 if failed else 0


def _circumstances(ground: Ground) -> dict[str, str]:
    versions = read_installed(ground.lab).versions
    shown = {name: versions[name] for name in ("pip", "torch", "bitsandbytes", "transformers", "peft")}
    uv = subprocess.run([ground.uv, "--version"], capture_output=True, text=True, check=True)
    return {**shown, "uv": uv.stdout.split()[1]}


if __name__ == "__main__":
    raise SystemExit(main())
