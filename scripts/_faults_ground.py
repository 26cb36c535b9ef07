"""Grounds for `prove_faults`: real environments with a user's own packages and files, made in a second.

A ground is made from the lock of one environment that `bnbenv create` built and proved: either a plain venv,
which is nobody's of ours, or a generation of bnbenv's with that environment's own state. Faults are planted
by replacing files, never by changing them: they are hard-linked to uv's cache and to other grounds.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))
from jsonschema.exceptions import ValidationError  # noqa: E402

from support.schemas import validate  # noqa: E402
from support.wheels import write_wheel  # noqa: E402

LIMIT = 600.0  # seconds for one command
FROM_INDEX = "einops==0.8.1"
WORK = ".bnbenv-repair"


@dataclass
class Laboratory:
    """What all grounds share: the proven template, uv, the NVML stub."""

    root: Path
    uv: Path

    @classmethod
    def open(cls) -> Laboratory:
        """The laboratory of this user; the template is built once."""
        from uv import find_uv_bin

        lab = cls(root=Path(tempfile.gettempdir()) / f"bnbenv-faults-{os.getuid()}", uv=Path(find_uv_bin()))
        if not (lab.template / ".bnbenv" / "READY").is_file():
            shutil.rmtree(lab.root, ignore_errors=True)
            lab.root.mkdir(parents=True)
            done = subprocess.run(
                [sys.executable, "-m", "bnbenv", "create", "qlora", "--yes", "--cpu"],
                env={**os.environ, "BNBENV_HOME": str(lab.root / "home")},
                capture_output=True,
                text=True,
                check=False,
                timeout=LIMIT,
            )
            if done.returncode != 0:
                raise SystemExit(f"the template could not be made: {done.stderr[-2000:]}")
        return lab

    @property
    def template(self) -> Path:
        """The proven environment, by its real path."""
        return Path(os.path.realpath(self.root / "home" / "envs" / "qlora"))

    @property
    def python(self) -> Path:
        """The interpreter that the template was built with."""
        return Path(os.path.realpath(self.template / "bin" / "python"))

    def lock(self) -> Path:
        """The template's lock, under a name that uv knows."""
        file = self.root / "pylock.toml"
        if not file.is_file():
            shutil.copy(self.template / ".bnbenv" / "lock.toml", file)
        return file

    def run_uv(self, *arguments: str, **environ: str) -> None:
        """uv, loudly."""
        subprocess.run(
            [str(self.uv), *arguments, "--no-config", "--quiet"],
            env={**os.environ, "NO_COLOR": "1", **environ},
            check=True,
            timeout=LIMIT,
        )

    def nvml(self) -> Path:
        """The stub library, compiled here."""
        library = self.root / "libnvidia-ml.so.1"
        if not library.is_file():
            compiler = shutil.which("cc") or shutil.which("gcc") or "cc"
            soname = "-Wl,-soname,libnvidia-ml.so.1"
            stub = TESTS / "stubs" / "nvml.c"
            subprocess.run([compiler, "-shared", "-fPIC", soname, "-o", str(library), str(stub)], check=True)
        return library


@dataclass
class Ground:
    """One environment to be hurt.

    Attributes:
        kind: ``venv``, ``ours`` with generations, or ``plain``: ours in one directory without.
        environ: variables for the commands.
        host: a machine of `tests/hosts` that the commands are told they run on.
        problems: what did not hold.
    """

    lab: Laboratory
    root: Path
    kind: str
    environ: dict[str, str] = field(default_factory=dict)
    host: str | None = None
    problems: list[str] = field(default_factory=list)
    skipped: str | None = None
    seconds: float = 0.0

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def env(self) -> Path:
        """The environment by its real path; of ours the generation that is current now."""
        if self.kind == "ours":
            return Path(os.path.realpath(self.home / "envs" / "qlora"))
        return self.root / "env"

    @property
    def named(self) -> str:
        """How the user calls it."""
        return "qlora" if self.kind == "ours" else str(self.env)

    @property
    def site(self) -> Path:
        return next((self.env / "lib").glob("python3*")) / "site-packages"

    @property
    def bitsandbytes(self) -> Path:
        return self.site / "bitsandbytes"

    def info(self, name: str) -> Path:
        """The metadata directory of a package."""
        return next(self.site.glob(f"{name}-*.dist-info"))

    def make(self) -> None:
        """Build it, with what the user added."""
        # What the self-test has compiled before is shared, as between the environments of one user.
        cache = self.lab.root / "home" / "cache"
        cache.mkdir(exist_ok=True)
        self.home.mkdir()
        (self.home / "cache").symlink_to(cache)
        real, directory = self.lab.template, self.root / "env"
        if self.kind == "ours":
            directory = self.home / "generations" / "qlora" / real.name
        if self.kind != "venv":
            directory.mkdir(parents=True)
            shutil.copytree(real / ".bnbenv", directory / ".bnbenv")
        if self.kind == "ours":
            (self.home / "envs").mkdir()
            (self.home / "envs" / "qlora").symlink_to(f"../generations/qlora/{real.name}")
        self.lab.run_uv(
            "venv", str(directory), "--python", str(self.lab.python), "--no-project", "--allow-existing"
        )
        self.lab.run_uv(
            "pip", "sync", str(self.lab.lock()), "--python", str(directory / "bin" / "python"),
            "--preview-features", "pylock",
        )  # fmt: skip
        if self.kind != "venv":
            self._guard()
        self._add_what_is_the_users()
        # Of one of ours the finishing mark is younger than the files, as after a build.
        if self.kind != "venv":
            os.utime(self.env / ".bnbenv" / "READY")

    def _guard(self) -> None:
        """What holds it to its lock, as the build of a generation writes it anew."""
        from bnbenv.env import guard
        from bnbenv.env.installed import read_installed

        held = guard.read(self.lab.template)
        if held is None:
            raise AssertionError("the template has a guard")
        guard.stand(self.env, held, read_installed(self.env))

    def _add_what_is_the_users(self) -> None:
        wheel = write_wheel(self.root / "wheels", "lonely", "1.0")
        editable = self.root / "editable"
        editable.mkdir()
        (editable / "at_work.py").write_text("answer = 42\n", encoding="utf-8")
        (editable / "pyproject.toml").write_text(
            '[project]\nname = "at-work"\nversion = "0.1"\n[build-system]\nrequires = ["setuptools"]\n'
            'build-backend = "setuptools.build_meta"\n[tool.setuptools]\npy-modules = ["at_work"]\n',
            encoding="utf-8",
        )
        self.install("--no-deps", FROM_INDEX, str(wheel), "-e", str(editable))
        wheel.unlink()  # can be fetched nowhere any more
        (self.site / "mine.txt").write_text("the user's\n", encoding="utf-8")
        (self.site / "my_module.py").write_text("answer = 43\n", encoding="utf-8")
        (self.bitsandbytes / "notes.txt").write_text("the user's, beside the code\n", encoding="utf-8")
        (self.env / "share" / "mine").mkdir(parents=True, exist_ok=True)
        (self.env / "share" / "mine" / "data.bin").write_bytes(bytes(range(256)))
        tool = self.env / "bin" / "my-tool"
        tool.write_text("#!/bin/sh\necho mine\n", encoding="utf-8")
        tool.chmod(0o755)

    def install(self, *arguments: str) -> None:
        """What a user types into another installer."""
        self.lab.run_uv(
            "pip", "install", "--python", str(self.env / "bin" / "python"), *arguments, **self.environ
        )

    def uninstall(self, name: str) -> None:
        self.lab.run_uv("pip", "uninstall", "--python", str(self.env / "bin" / "python"), name)

    def users(self) -> dict[str, str]:
        """Every file of the user's by hash, and of the user's packages."""
        found: dict[str, str] = {}
        for pattern in (
            "einops/**/*.py", "einops-*.dist-info/METADATA", "lonely/*.py", "lonely-*.dist-info/METADATA",
            "at_work-*.dist-info/METADATA", "mine.txt", "my_module.py", "bitsandbytes/notes.txt",
        ):  # fmt: skip
            for path in self.site.glob(pattern):
                found[f"site/{path.relative_to(self.site)}"] = digest(path)
        for name in ("share/mine/data.bin", "bin/my-tool"):
            path = self.env / name
            found[name] = digest(path) if path.is_file() else "gone"
        return found

    def everything(self) -> dict[str, tuple[int, int, int]]:
        """Every file of the environment by what a change of it would change; byte code is nobody's."""
        found = {}
        for directory, subdirectories, names in os.walk(self.env):
            subdirectories[:] = [name for name in subdirectories if name != "__pycache__"]
            for name in names:
                facts = os.lstat(os.path.join(directory, name))  # noqa: PTH118
                relative = os.path.relpath(os.path.join(directory, name), self.env)  # noqa: PTH118
                found[relative] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        return found

    def owners(self) -> dict[str, str]:
        """Path → package, by the RECORDs that are there."""
        from bnbenv.env.additions import owned_files
        from bnbenv.env.installed import read_installed

        return {
            os.path.relpath(path, self.env): found.name
            for found in read_installed(self.env).distributions
            for path in owned_files(found)
        }

    def command(self, *arguments: str) -> list[str]:
        """One command, on this machine or on the one that is stood in for."""
        if self.host is None:
            return [sys.executable, "-m", "bnbenv", *arguments]
        stub = TESTS / "support" / "stubbed_host.py"
        return [
            sys.executable, str(stub), str(TESTS / "hosts" / self.host), str(self.lab.nvml()),
            str(self.root / "machine"), *arguments,
        ]  # fmt: skip

    def variables(self) -> dict[str, str]:
        return {**os.environ, "BNBENV_HOME": str(self.home), "NO_COLOR": "1", **self.environ}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The same, not waited for; a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.variables(),
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def repair(self, *arguments: str) -> Answer:
        """`repair --json` and what came of it."""
        process = self.start("repair", self.named, "--yes", "--json", *arguments)
        out, err = process.communicate(timeout=LIMIT)
        return self.answer(process.returncode, out, err)

    def answer(self, code: int, out: str, err: str) -> Answer:
        try:
            envelope = json.loads(out)
        except ValueError:
            self.problems.append(f"no JSON on stdout: {out[-200:]!r} {err[-400:]}")
            envelope = {"status": "none", "data": {}, "problems": []}
        else:
            try:
                validate(envelope)
            except ValidationError as error:
                self.problems.append(f"against its schema: {error.message[:300]}")
        if "Traceback" in err:
            self.problems.append(f"a traceback: {err[-400:]}")
        return Answer(code=code, envelope=envelope, stderr=err)

    def expect(self, holds: object, words: str) -> None:
        if not holds:
            self.problems.append(words)

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


@dataclass
class Answer:
    """What one `repair --json` said."""

    code: int
    envelope: dict[str, Any]
    stderr: str

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = self.envelope["data"]
        return data

    @property
    def outcome(self) -> str:
        return str(self.data.get("outcome"))

    @property
    def seen(self) -> list[str]:
        """The causes that the doctor named, likeliest first; notices are none."""
        return [it["code"] for it in self.data.get("before", []) if it["severity"] != "info"]

    @property
    def words(self) -> str:
        """Everything that was said to the user."""
        return json.dumps(self.envelope["problems"]) + json.dumps(self.data.get("plan", {}))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def replace_bytes(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Put a changed copy in a file's place: the file itself may be linked to a cache."""
    content = change(path.read_bytes())
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(content)
    path.chmod(mode)
