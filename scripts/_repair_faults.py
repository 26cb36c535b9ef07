"""The faults of `prove_faults`: what is planted, which cause must be named, and what must come of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from _faults_ground import LIMIT, WORK, Answer, Ground, replace_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Expected = Literal["mended", "stopped", "shown", "planned", "refused"]
Kind = Literal["venv", "ours", "plain"]
_SUFFIXES: dict[Kind, str] = {"venv": "", "ours": "-of-ours", "plain": "-in-a-plain-directory"}

CUDA_TORCH = "torch==2.14.1"  # the default index has it for CUDA 13 alone


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        code: the cause that the doctor must name; ``""`` where nothing is wrong with the environment itself.
        plant: does the harm, before anybody looks.
        act: what is done instead of one plain `repair`; returns the answer that is judged.
        says: what the answer must tell the user.
        slow: needs a CUDA build of torch.
    """

    name: str
    code: str
    kind: Kind
    expected: Expected
    plant: Callable[[Ground], None]
    act: Callable[[Ground], Answer]
    says: tuple[str, ...] = ()
    slow: bool = False


FAULTS: dict[str, Fault] = {}


def fault(
    code: str,
    kind: Kind = "venv",
    expected: Expected = "mended",
    *,
    says: tuple[str, ...] = (),
    act: Callable[[Ground], Answer] | None = None,
    slow: bool = False,
    name: str | None = None,
) -> Callable[[Callable[[Ground], None]], Callable[[Ground], None]]:
    """Register a fault under its function's name."""

    def register(plant: Callable[[Ground], None]) -> Callable[[Ground], None]:
        title = name or f"{plant.__name__.strip('_').replace('_', '-')}"
        title += _SUFFIXES[kind]
        FAULTS[title] = Fault(
            name=title, code=code, kind=kind, expected=expected, plant=plant, act=act or plain, says=says,
            slow=slow,
        )  # fmt: skip
        return plant

    return register


def plain(ground: Ground) -> Answer:
    return ground.repair()


def dry(ground: Ground) -> Answer:
    return ground.repair("--dry-run")


# Native libraries and other files


def cpu_library(ground: Ground) -> Path:
    return ground.bitsandbytes / "libbitsandbytes_cpu.so"


@fault("file-damaged", "plain")
@fault("file-damaged", "ours")
@fault("file-damaged")
def library_deleted(ground: Ground) -> None:
    cpu_library(ground).unlink()


@fault("file-damaged")
def library_truncated(ground: Ground) -> None:
    replace_bytes(cpu_library(ground), lambda data: data[: len(data) // 2])


@fault("file-damaged")
def library_without_its_last_kilobyte(ground: Ground) -> None:
    replace_bytes(cpu_library(ground), lambda data: data[:-1024])


@fault("file-damaged")
def library_with_four_bytes_zeroed(ground: Ground) -> None:
    def zeroed(data: bytes) -> bytes:
        place = next(place for place in range(5000, len(data)) if 0 not in data[place : place + 4])
        return data[:place] + b"\0\0\0\0" + data[place + 4 :]

    replace_bytes(cpu_library(ground), zeroed)


@fault("file-damaged", "ours")
def library_with_one_bit_flipped(ground: Ground) -> None:
    replace_bytes(cpu_library(ground), lambda data: data[:9000] + bytes([data[9000] ^ 1]) + data[9001:])


@fault("file-damaged")
def source_edited(ground: Ground) -> None:
    replace_bytes(ground.bitsandbytes / "functional.py", lambda data: data + b"\nraise SystemExit\n")


@fault("file-damaged")
def torch_library_truncated(ground: Ground) -> None:
    replace_bytes(ground.site / "torch" / "lib" / "libtorch_cpu.so", lambda data: data[: len(data) // 2])


@fault("file-damaged", "ours")
def torch_version_lost(ground: Ground) -> None:
    replace_bytes(ground.site / "torch" / "version.py", lambda _: b"")


@fault("file-damaged")
def transformers_file_deleted(ground: Ground) -> None:
    (ground.site / "transformers" / "modeling_utils.py").unlink()


# Metadata


@fault("record-missing")
def record_missing(ground: Ground) -> None:
    (ground.info("bitsandbytes") / "RECORD").unlink()


@fault("record-missing")
def record_garbage(ground: Ground) -> None:
    replace_bytes(ground.info("bitsandbytes") / "RECORD", lambda _: b"\0\xff garbage\n" * 9)


@fault("record-missing")
def metadata_missing(ground: Ground) -> None:
    shutil.rmtree(ground.info("bitsandbytes"))


@fault("record-missing", "ours")
def torch_record_missing(ground: Ground) -> None:
    (ground.info("torch") / "RECORD").unlink()


@fault("duplicate-package")
def two_metadata_of_one_package(ground: Ground) -> None:
    old = ground.info("bitsandbytes")
    shutil.copytree(old, old.with_name("bitsandbytes-0.46.1.dist-info"))
    copy = ground.site / "bitsandbytes-0.46.1.dist-info" / "METADATA"
    replace_bytes(copy, lambda data: data.replace(b"Version: 0.50.2", b"Version: 0.46.1"))


@fault("stale-library")
def library_of_another_version(ground: Ground) -> None:
    shutil.copy(cpu_library(ground), ground.bitsandbytes / "libbitsandbytes_cuda125.so")


@fault("stale-library", "ours")
def another_version_over_lost_metadata(ground: Ground) -> None:
    """As users do it: the metadata are gone, and the installer puts another release over the old files."""
    shutil.rmtree(ground.info("bitsandbytes"))
    ground.install("--no-deps", "bitsandbytes==0.46.1")


# Versions


@fault("bnb-too-old")
def bitsandbytes_0_42(ground: Ground) -> None:
    ground.install("--no-deps", "bitsandbytes==0.42.0")


@fault("bnb-too-old")
def bitsandbytes_0_43(ground: Ground) -> None:
    ground.install("--no-deps", "bitsandbytes==0.43.3")


@fault("bnb-too-old")
def bitsandbytes_0_45(ground: Ground) -> None:
    ground.install("--no-deps", "bitsandbytes==0.45.5")


@fault("environment-changed", "ours")
def bitsandbytes_0_46(ground: Ground) -> None:
    ground.install("--no-deps", "bitsandbytes==0.46.1")


@fault("environment-changed", "plain")
@fault("environment-changed", "ours")
def bitsandbytes_0_49(ground: Ground) -> None:
    ground.install("--no-deps", "bitsandbytes==0.49.2")


@fault("environment-changed", "plain")
@fault("environment-changed", "ours")
def guard_replaced(ground: Ground) -> None:
    (ground.env / "pip.conf").unlink()
    pip = ground.env / "bin" / "pip"
    pip.unlink()  # as an installer replaces it
    pip.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    pip.chmod(0o755)


@fault("environment-changed", "plain")
def guard_replaced_and_bitsandbytes_0_49(ground: Ground) -> None:
    guard_replaced(ground)
    bitsandbytes_0_49(ground)


@fault("environment-changed", "ours")
def bitsandbytes_0_50(ground: Ground) -> None:
    ground.install("--no-deps", "bitsandbytes==0.50.0")


@fault("bnb-not-installed", "ours")
@fault("bnb-not-installed")
def bitsandbytes_uninstalled(ground: Ground) -> None:
    ground.uninstall("bitsandbytes")
    # What an uninstaller leaves where a file of nobody's stands in the directory.
    ground.expect(ground.bitsandbytes.is_dir(), "the user's notes went with the package")


@fault("torch-not-installed")
def torch_uninstalled(ground: Ground) -> None:
    ground.uninstall("torch")


@fault("installer-replaced-torch", "ours", slow=True)
def torch_upgraded_by_an_installer(ground: Ground) -> None:
    """A plain `pip install -U torch`: the default index answers with a CUDA build and its libraries."""
    ground.install(CUDA_TORCH)


def restored(ground: Ground) -> Answer:
    return ground.repair("--restore")


@fault("installer-replaced-torch", "ours", slow=True, act=restored)
def torch_upgraded_and_not_wanted(ground: Ground) -> None:
    ground.install(CUDA_TORCH)


@fault("hf-stack-version-mismatch")
def peft_too_old(ground: Ground) -> None:
    ground.install("--no-deps", "peft==0.13.2")


@fault("hf-stack-version-mismatch")
def transformers_too_old(ground: Ground) -> None:
    ground.install("--no-deps", "transformers==4.46.3", "tokenizers==0.20.3")


@fault("environment-changed", "ours")
def packages_of_the_lock_removed(ground: Ground) -> None:
    for name in ("safetensors", "tokenizers"):
        ground.uninstall(name)


@fault("torch-triton-mismatch", expected="planned", act=dry, says=("triton",), slow=True)
def triton_removed(ground: Ground) -> None:
    ground.install(CUDA_TORCH)
    ground.uninstall("triton")
    ground.host = "cuda_12.0_580.95.05_ok--rtx5090"


# The interpreter and the place


@fault("interpreter-broken", "ours")
@fault("interpreter-broken")
def pyvenv_cfg_deleted(ground: Ground) -> None:
    (ground.env / "pyvenv.cfg").unlink()


@fault("interpreter-broken")
def pyvenv_cfg_names_a_lost_python(ground: Ground) -> None:
    replace_bytes(ground.env / "pyvenv.cfg", lambda data: data.replace(b"home = ", b"home = /gone"))


@fault("interpreter-broken", "ours")
@fault("interpreter-broken")
def base_python_deleted(ground: Ground) -> None:
    for link in (ground.env / "bin").glob("python*"):
        if link.is_symlink() and os.path.isabs(os.readlink(link)):  # noqa: PTH115, PTH117
            link.unlink()
            link.symlink_to(ground.root / "gone" / "bin" / "python3")
    replace_bytes(
        ground.env / "pyvenv.cfg",
        lambda data: b"".join(
            b"home = %s\n" % os.fsencode(ground.root / "gone" / "bin") if line.startswith(b"home") else line
            for line in data.splitlines(keepends=True)
        ),
    )


@fault("environment-moved")
def environment_moved(ground: Ground) -> None:
    """It was built elsewhere: its scripts name a place that is gone."""
    for script in sorted((ground.env / "bin").iterdir()):
        if script.is_symlink() or script.name == "my-tool":
            continue
        replace_bytes(script, lambda data: data.replace(os.fsencode(ground.env), b"/gone/before"))


# What is outside the environment: shown, and nothing touched


@fault("bnb-cuda-override-wrong", expected="shown", says=("BNB_CUDA_VERSION",), slow=True)
def override_variable(ground: Ground) -> None:
    ground.install(CUDA_TORCH)
    ground.host = "cuda_12.0_580.95.05_ok--rtx5090"
    ground.environ["BNB_CUDA_VERSION"] = "125"


@fault("cuda-runtime-not-found", expected="shown", says=("unset BNB_CUDA_VERSION",), slow=True)
def override_variable_of_another_cuda(ground: Ground) -> None:
    ground.install(CUDA_TORCH)
    ground.host = "cuda_12.0_580.95.05_ok--rtx5090"
    ground.environ["BNB_CUDA_VERSION"] = "118"


@fault("cwd-shadowing", expected="shown", says=("bitsandbytes",))
def directory_that_shadows(ground: Ground) -> None:
    (ground.root / "bitsandbytes").mkdir()
    (ground.root / "bitsandbytes" / "__init__.py").write_text("", encoding="utf-8")


@fault("quant-lib-conflict", expected="shown", says=("autoawq",))
def hazard_beside(ground: Ground) -> None:
    from support.wheels import write_wheel

    wheel = write_wheel(ground.root / "more", "autoawq", "0.2.9", requires=("transformers<=4.51.3",))
    ground.install("--no-deps", str(wheel))


# The machine: named with the next step, and nothing touched


@fault("no-gpu-visible", "ours", "stopped", says=("--target", "--cpu"), slow=True)
def gpu_not_visible(ground: Ground) -> None:
    ground.install(CUDA_TORCH)
    file = ground.env / ".bnbenv" / "state.json"
    state = json.loads(file.read_bytes())
    state["request"].pop("cpu", None)
    state["torch"] = {"version": CUDA_TORCH.partition("==")[2], "build": "cu130", "index": "pypi"}
    state["target"].update(
        accelerator="cuda",
        driver="580.95.05",
        gpus=[{"name": "NVIDIA GeForce RTX 4090", "compute_capability": "8.9", "memory_mib": 24564}],
    )
    replace_bytes(file, lambda _: json.dumps(state).encode())
    cpu_library(ground).unlink()  # also what could be mended is left alone


@fault("driver-broken", expected="stopped", says=("reboot",), slow=True)
def driver_replaced_without_a_reboot(ground: Ground) -> None:
    ground.install(CUDA_TORCH)
    ground.host = "cpu_none_550.54.15_mismatch--mismatch-through-nvml"


@fault("torch-cpu-build", expected="planned", act=dry, says=("torch",))
def cpu_torch_on_a_gpu(ground: Ground) -> None:
    ground.host = "cuda_8.9_550.54.15_ok--rtx4090"


@fault("driver-too-old", expected="planned", act=dry, says=("torch",), slow=True)
def torch_newer_than_the_driver(ground: Ground) -> None:
    ground.install(CUDA_TORCH)
    ground.host = "cuda_8.9_550.54.15_ok--rtx4090"


@fault("torch-arch-unsupported", expected="planned", act=dry, says=("torch",), slow=True)
def gpu_that_torch_no_longer_serves(ground: Ground) -> None:
    ground.install(CUDA_TORCH)
    ground.host = "cuda_7.0+7.0_535.161.08_ok--v100-pair-in-a-slurm-job"


@fault("missing-cuda-binary", expected="planned", act=dry, says=("bitsandbytes",), slow=True)
def bitsandbytes_without_that_cuda(ground: Ground) -> None:
    ground.install(CUDA_TORCH)
    ground.install("--no-deps", "bitsandbytes==0.46.1")
    ground.host = "cuda_12.0_580.95.05_ok--rtx5090"


# Caches, disks and rights


@fault("file-damaged")
def poisoned_cache(ground: Ground) -> None:
    """Uv's own unpacked copy is damaged, and it never hashes that again."""
    ground.environ["UV_CACHE_DIR"] = str(ground.root / "cache")
    ground.install("--no-deps", "--reinstall", "--link-mode", "hardlink", "bitsandbytes==0.50.2")
    linked = cpu_library(ground)
    linked.chmod(0o644)
    with linked.open("r+b") as stream:  # in place: the cache of this ground alone shares it
        stream.seek(5000)
        stream.write(b"\0\0\0\0\1\1\1\1")


@contextmanager
def mounted(directory: Path, *arguments: str) -> Iterator[bool]:
    """A mount of our own, where this user may make one."""
    done = subprocess.run(["mount", *arguments, str(directory)], check=False, capture_output=True)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(directory)], check=False)


def read_only(ground: Ground) -> Answer:
    with mounted(ground.env, "--bind", str(ground.env)) as bound:
        frozen = bound and subprocess.run(
            ["mount", "-o", "remount,ro,bind", str(ground.env)], check=False, capture_output=True
        )
        if not bound or not frozen or frozen.returncode != 0:
            ground.skipped = "this user may not mount"
        return ground.repair()


@fault("file-damaged", expected="refused", act=read_only, says=("permission",))
def environment_read_only(ground: Ground) -> None:
    cpu_library(ground).unlink()


def full_disk(ground: Ground) -> Answer:
    """The environment stands on a file system without room for what would come."""
    real = ground.env
    aside = ground.root / "aside"
    real.rename(aside)
    real.mkdir()
    with mounted(real, "-t", "tmpfs", "-o", "size=1900m", "tmpfs") as there:
        if not there:
            ground.skipped = "this user may not mount"
            real.rmdir()
            aside.rename(real)
            return ground.repair()
        shutil.copytree(aside, real, symlinks=True, dirs_exist_ok=True)
        room = shutil.disk_usage(real).free
        (real / "ballast").write_bytes(b"\0" * max(0, room - (8 << 20)))
        before = ground.everything()
        answer = ground.repair()
        ground.expect(ground.everything() == before, "a full disk changed the environment")
    real.rmdir()
    aside.rename(real)
    return answer


@fault("file-damaged", expected="refused", act=full_disk, says=("disk-full",))
def disk_full(ground: Ground) -> None:
    cpu_library(ground).unlink()


# Kills, rivals, and users at work


def _strike(ground: Ground, moment: Callable[[], bool], *, group: bool) -> None:
    """SIGKILL at the moment; to bnbenv alone, or to all that it has started."""
    process = ground.start("repair", ground.named, "--yes", "--json")
    deadline = time.monotonic() + LIMIT
    while not moment() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    ground.expect(process.poll() is None, "the repair ended before it could be killed")
    with suppress(ProcessLookupError):
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=LIMIT)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def killed(moment: Callable[[Ground], bool], *, group: bool) -> Callable[[Ground], Answer]:
    def act(ground: Ground) -> Answer:
        before = ground.users()
        _strike(ground, lambda: moment(ground), group=group)
        answer = ground.repair()
        ground.expect(ground.users() == before, "a kill cost the user something")
        return answer

    return act


def staged(ground: Ground) -> bool:
    return any((ground.env / WORK / "staged").glob("lib/*/site-packages/*"))


def half_done(ground: Ground) -> bool:
    return (ground.env / WORK / "journal.json").is_file()


def proving(ground: Ground) -> bool:
    return half_done(ground) and cpu_library(ground).is_file()


def building(ground: Ground) -> bool:
    others = [it for it in (ground.home / "generations" / "qlora").glob("*-2") if it != ground.env]
    return any((it / "lib").is_dir() for it in others)


def furnished(ground: Ground) -> bool:
    others = [it for it in (ground.home / "generations" / "qlora").glob("*-2") if it != ground.env]
    return any(any(it.glob("lib/*/site-packages/einops/__init__.py")) for it in others)


fault("file-damaged", act=killed(staged, group=False), name="killed-while-it-unpacks")(library_deleted)
fault("file-damaged", act=killed(staged, group=True), name="killed-with-its-children-while-it-unpacks")(
    library_deleted
)
fault("file-damaged", act=killed(half_done, group=False), name="killed-at-the-first-rename")(library_deleted)
fault("file-damaged", act=killed(proving, group=False), name="killed-while-it-proves")(library_deleted)
fault("file-damaged", act=killed(proving, group=True), name="killed-with-its-children-while-it-proves")(
    library_deleted
)
fault(
    "file-damaged", "plain", act=killed(proving, group=True), name="killed-with-its-children-while-it-proves"
)(library_deleted)
fault("file-damaged", "ours", act=killed(building, group=False), name="killed-while-it-builds")(
    library_deleted
)
fault("file-damaged", "ours", act=killed(furnished, group=True), name="killed-while-it-brings-along")(
    library_deleted
)


def two_at_once(ground: Ground) -> Answer:
    first = ground.start("repair", ground.named, "--yes", "--json")
    second = ground.start("repair", ground.named, "--yes", "--json")
    answers = []
    for process in (first, second):
        out, err = process.communicate(timeout=LIMIT)
        answers.append(ground.answer(process.returncode, out, err))
    outcomes = sorted(answer.outcome for answer in answers)
    ground.expect(outcomes == ["nothing", "repaired"], f"two at once came to {outcomes}")
    ground.expect(all(answer.code == 0 for answer in answers), "one of two failed")
    return next((it for it in answers if it.outcome == "repaired"), answers[0])


fault("file-damaged", act=two_at_once, name="two-repairs-at-once")(library_deleted)
fault("file-damaged", "ours", act=two_at_once, name="two-repairs-at-once")(library_deleted)

_AT_WORK = """
import sys, time, bitsandbytes, torch
print("ready", flush=True)
sys.stdin.readline()
import bitsandbytes.optim, transformers
layer = bitsandbytes.nn.Linear4bit(64, 64)
print("fine", torch.ones(2).sum().item(), flush=True)
"""


def while_in_use(ground: Ground) -> Answer:
    python = ground.env / "bin" / "python"
    process = subprocess.Popen(
        [str(python), "-c", _AT_WORK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ground.root,
    )
    if process.stdout is None or process.stdin is None:
        raise AssertionError("the process has pipes")
    ground.expect(process.stdout.readline() == "ready\n", "the user's process did not start")
    answer = ground.repair()
    out, err = process.communicate("go on\n", timeout=LIMIT)
    ground.expect("fine 2.0" in out, f"a process at work was disturbed: {err[-300:]}")
    return answer


fault("file-damaged", act=while_in_use, name="repaired-while-in-use")(transformers_file_deleted)
fault("environment-changed", "ours", act=while_in_use, name="repaired-while-in-use")(bitsandbytes_0_49)


@fault("state-broken", "ours", "stopped", says=("rollback",))
def state_garbage(ground: Ground) -> None:
    replace_bytes(ground.env / ".bnbenv" / "state.json", lambda _: b"{")
