"""The files of `lock --export`: what stands in them, and what a shell does with them beside stand-ins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from shutil import which
from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import DataError, UsageError
from bnbenv.lockfile import index
from bnbenv.lockfile.index import TeamLock, Variant
from bnbenv.workflows.config import config_path
from bnbenv.workflows.export_lock import export_lock

if TYPE_CHECKING:
    from pathlib import Path

WHEEL = f"""
[[packages]]
name = "pure"
version = "1"
index = "https://example.org/simple"
[[packages.wheels]]
name = "pure-1-py3-none-any.whl"
url = "https://example.org/pure-1-py3-none-any.whl"
hashes = {{ sha256 = "{"ab" * 32}" }}
"""
SOURCE = f"""
[[packages]]
name = "source"
version = "1"
index = "https://example.org/simple"
[packages.sdist]
name = "source-1.tar.gz"
url = "https://example.org/source-1.tar.gz"
hashes = {{ sha256 = "{"cd" * 32}" }}
"""
# One step on one node: `srun` runs it, and `bnbenv` says what it was asked and with which home. The node gets
# the variant cu126.
SRUN = """\
#!/bin/sh
[ "$1" = --ntasks-per-node=1 ] || exit 64
shift
exec "$@"
"""
BNBENV = """\
#!/bin/sh
echo "$BNBENV_HOME" "$@" >> "$SAID"
case $* in *--json*) echo '{"status": "ok", "data": {"name": "it", "variant": "cu126", "gpus": []}}' ;; esac
case $* in *"${AT:---yes}"*) exit "${ENDS:-0}" ;; esac
"""


def write(
    directory: Path, build: str, *, profile: str = "qlora", arch: str = "x86_64", packages: str = WHEEL
) -> Path:
    """A lock whose only variant has a build of torch, and is called as that is."""
    directory.mkdir(exist_ok=True)
    text = f'lock-version = "1.0"\ncreated-by = "a test"\n{packages}'
    variant = Variant(
        name=build.replace(".", "-"),
        sha256=index.sha256_of(text),
        python="3.12",
        os="linux",
        arch=arch,
        glibc="2.31",
        torch={"version": "2.14.1", "build": build, "index": "an-index"},
        bitsandbytes=None,
        packages={},
        evidence="none",
    )
    (directory / variant.file).write_text(text, encoding="utf-8")
    index.write(directory, TeamLock(request={"profile": profile}, matrix="2026.11.23", variants=(variant,)))
    return directory


@pytest.mark.parametrize(
    ("build", "options"),
    [
        ("cpu", []),
        ("cu126", ["--gpus", "all"]),
        ("rocm7.2", ["--device=/dev/kfd", "--device=/dev/dri", "--group-add", "video"]),
        ("xpu", ["--device=/dev/dri"]),
    ],
)
def test_a_container_is_given_the_devices_of_its_accelerator(
    build: str, options: list[str], tmp_path: Path
) -> None:
    lock = write(tmp_path, build)
    run = " ".join(["#   docker run --rm", *options, "IMAGE python train.py"])
    assert run in export_lock(lock, "dockerfile").text.splitlines()
    document = json.loads(export_lock(lock, "devcontainer").text)
    assert document.get("runArgs", []) == options
    assert ("hostRequirements" in document) == (build != "cpu")
    assert ("Level Zero" in export_lock(lock, "dockerfile").text) == (build == "xpu")


@pytest.mark.parametrize(("arch", "platform"), [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64")])
def test_an_image_is_built_for_the_processor_of_its_variant(arch: str, platform: str, tmp_path: Path) -> None:
    text = export_lock(write(tmp_path, "cu126", arch=arch), "dockerfile").text
    assert f"docker build --platform {platform} -t IMAGE ." in text


def test_the_index_that_a_builder_is_given_reaches_what_it_runs(tmp_path: Path) -> None:
    lines = export_lock(write(tmp_path, "cpu"), "dockerfile").text.splitlines()
    base = next(number for number, line in enumerate(lines) if line.startswith("FROM "))
    first = next(number for number, line in enumerate(lines) if line.startswith("RUN "))
    assert "ARG PIP_INDEX_URL" in lines[base:first]


@pytest.mark.parametrize(("packages", "base"), [(WHEEL, "slim-bookworm"), (WHEEL + SOURCE, "bookworm")])
def test_what_has_no_wheel_is_built_where_there_is_a_compiler(
    packages: str, base: str, tmp_path: Path
) -> None:
    text = export_lock(write(tmp_path, "cpu", packages=packages), "dockerfile").text
    assert f"FROM python:3.12-{base}\n" in text


@pytest.mark.parametrize("profile", ["gptq", "awq"])
def test_no_image_is_written_that_cannot_be_built(profile: str, tmp_path: Path) -> None:
    lock = write(tmp_path, "cu126", profile=profile)
    for kind in ("dockerfile", "devcontainer"):
        with pytest.raises(UsageError, match=r"gptqmodel is built from source .* no CUDA toolkit") as caught:
            export_lock(lock, kind)
        assert caught.value.hint is not None
        assert "`devel`" in caught.value.hint
    assert "# gptqmodel is built on the nodes" in export_lock(lock, "slurm").text
    assert "built on the nodes" not in export_lock(write(tmp_path, "cu126"), "slurm").text


@pytest.mark.parametrize("kind", ["dockerfile", "devcontainer"])
def test_a_container_takes_what_only_this_machine_has_from_a_bundle(kind: str, tmp_path: Path) -> None:
    local = WHEEL.replace("https://example.org/pure-1", "file:///opt/wheels/pure-1")
    lock = write(tmp_path, "cpu", packages=local)
    with pytest.raises(UsageError, match=r"pure: `file:///opt/wheels/pure-1-py3-none-any.whl`") as caught:
        export_lock(lock, kind, allow_local=True)
    words = "--variant cpu --allow-local"
    bundle = f"bnbenv bundle {lock} -o BUNDLE {words}, and then "
    assert (caught.value.hint or "").startswith(f"{bundle}bnbenv lock --export {kind} {words} --dir BUNDLE;")
    (lock / "manifest.json").write_text('{"name": "of another tool"}', encoding="utf-8")
    with pytest.raises(UsageError):
        export_lock(lock, kind, allow_local=True)
    bundled(lock, "another")
    with pytest.raises(UsageError):
        export_lock(lock, kind, allow_local=True)
    bundled(lock, "cpu")
    text = export_lock(lock, kind, allow_local=True).text
    assert "--yes --allow-local --wheelhouse ." in text
    assert ("--mount=type=bind,source=wheels,target=/opt/lock/wheels" in text) == (kind == "dockerfile")
    assert "--allow-local" in export_lock(lock, "slurm", allow_local=True).text  # nodes may share the disk


@pytest.mark.skipif(os.name == "nt", reason="a container of Linux")
@pytest.mark.parametrize("ends", [0, 1, 3])
def test_an_image_starts_nothing_unless_verify_passes(ends: int, tmp_path: Path) -> None:
    lines = export_lock(write(tmp_path / "lock", "cu126"), "dockerfile").text.splitlines()
    [entry] = [line.removeprefix("ENTRYPOINT ") for line in lines if line.startswith("ENTRYPOINT ")]
    tools = put(tmp_path / "bin", bnbenv=f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nexit {ends}\n')
    command = [*json.loads(entry), "echo", "a b", "$HOME"]
    done = subprocess.run(command, env={"PATH": tools}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (ends, "" if ends else "a b $HOME\n")
    words = (tmp_path / "asked").read_text().split()
    assert words == ["verify", "/opt/env", "--require-accelerator", "--quiet"]
    start = json.loads(export_lock(tmp_path / "lock", "devcontainer").text)["postStartCommand"]
    assert start == "bnbenv verify .venv --require-accelerator"


def test_what_a_lock_says_is_no_command_of_an_exported_script(tmp_path: Path) -> None:
    text = export_lock(write(tmp_path, "cpu", profile="qlora; touch /tmp/evil"), "slurm").text
    assert "\nname='qlora; touch /tmp/evil'-${" in text


@pytest.mark.parametrize("profile", ["qlora", "gptq"])
@pytest.mark.parametrize("build", ["cpu", "cu126", "rocm7.2", "xpu"])
def test_the_exports_pass_real_linters(build: str, profile: str, tmp_path: Path) -> None:
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", "")))  # noqa: PTH120
    lock = write(tmp_path, build, profile=profile)
    kinds = {"slurm": "shellcheck", "dockerfile": "hadolint"}
    for kind, linter in kinds.items():
        if (kind, profile, build) == ("dockerfile", "gptq", "cu126"):
            continue  # refused
        tool = which(linter, path=path)
        if tool is None:
            pytest.skip(f"{linter} is not installed")
        for from_bundle in (False, True):
            if from_bundle:
                bundled(lock, build.replace(".", "-"))
            file = tmp_path / kind
            file.write_text(export_lock(lock, kind).text, encoding="utf-8")
            done = subprocess.run([tool, str(file)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        (lock / "manifest.json").unlink()


def bundled(lock: Path, variant: str) -> None:
    """Make a directory look like a bundle of one variant."""
    (lock / "wheels").mkdir(exist_ok=True)
    manifest = {"schema": 1, "variants": {variant: []}}
    (lock / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def put(directory: Path, **scripts: str) -> str:
    """A PATH whose first directory has these scripts."""
    directory.mkdir(exist_ok=True)
    for name, text in scripts.items():
        (directory / name).write_text(text, encoding="utf-8")
        (directory / name).chmod(0o755)
    return f"{directory}{os.pathsep}{os.defpath}"


@pytest.mark.skipif(sys.platform != "linux", reason="a job of Slurm's")
class TestSlurm:
    """The script, run with stand-ins of `srun` and `bnbenv` on a disk that is the test's."""

    def submit(self, lock: Path, **variables: str) -> tuple[int, list[list[str]], str]:
        """The exit code, what `bnbenv` was asked (its home first), and what was said."""
        work = lock.parent
        script, said = work / "bnbenv.sbatch", work / "said"
        script.write_text(export_lock(lock, "slurm").text, encoding="utf-8")
        said.write_text("")
        environ = {
            "PATH": put(work / "bin", srun=SRUN, bnbenv=BNBENV),
            "SLURM_TMPDIR": str(work),
            "SAID": str(said),
            **variables,
        }
        command = ["bash", str(script), str(lock), "python", "train.py", "--lr", "1e-4"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        return done.returncode, [line.split() for line in said.read_text().splitlines()], done.stderr

    def test_a_job_runs_in_what_it_has_synced(self, tmp_path: Path) -> None:
        lock = write(tmp_path / "lock", "cu126")
        code, [sync, asked, run], told = self.submit(lock)
        assert (code, told) == (0, "")
        home = str(tmp_path / f"bnbenv-{os.getuid()}" / "home")
        name = sync[4]
        assert name.startswith("qlora-")
        assert name.endswith("-{variant}")
        assert sync == [home, "sync", str(lock), "--name", name, "--yes", "--quiet"]
        assert asked == [home, "sync", str(lock), "--name", name, "--dry-run", "--json", "--quiet"]
        own = name.replace("{variant}", "cu126")
        assert run == [home, "run", own, "--", "python", "train.py", "--lr", "1e-4"]

    def test_jobs_share_an_environment_where_their_locks_are_equal(self, tmp_path: Path) -> None:
        names = [
            self.submit(write(tmp_path / directory, build))[1][0][4]
            for directory, build in (("a", "cu126"), ("b", "cu126"), ("c", "cu130"))
        ]
        assert names[0] == names[1] != names[2]

    def test_nothing_runs_where_the_lock_serves_nothing(self, tmp_path: Path) -> None:
        code, asked, _ = self.submit(write(tmp_path / "lock", "cu126"), ENDS="3")
        assert (code, [words[1] for words in asked]) == (3, ["sync"])

    def test_nothing_runs_where_its_environment_is_not_known(self, tmp_path: Path) -> None:
        code, asked, told = self.submit(write(tmp_path / "lock", "cu126"), AT="--json", ENDS="5")
        assert (code, [words[1] for words in asked]) == (5, ["sync", "sync"])
        assert '"status"' in told

    @pytest.mark.parametrize("variable", ["HOME", "XDG_CONFIG_HOME", "BNBENV_HOME"])
    def test_a_job_keeps_to_what_its_user_has_configured(
        self, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("XDG_CONFIG_HOME", "BNBENV_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(variable, str(tmp_path / "my own"))
        settings = config_path()
        settings.parent.mkdir(parents=True)
        settings.write_text("# a token\n", encoding="utf-8")
        settings.chmod(0o600)
        lock = write(tmp_path / "lock", "cu126")
        home = tmp_path / f"bnbenv-{os.getuid()}" / "home"
        code, [sync, *_], told = self.submit(lock, **{variable: str(tmp_path / "my own")})
        assert (code, sync[0], told) == (0, str(home), "")
        assert [*home.iterdir()] == [home / "config.toml"]
        assert (home / "config.toml").read_text(encoding="utf-8") == "# a token\n"
        assert (home / "config.toml").stat().st_mode & 0o777 == 0o600
        self.submit(lock, HOME=str(tmp_path / "another"))
        assert [*home.iterdir()] == []  # what is set no more

    def test_a_bundle_is_all_that_is_installed_from(self, tmp_path: Path) -> None:
        lock = write(tmp_path / "a bundle", "cu126")
        bundled(lock, "cu126")
        code, [sync, asked, _], _ = self.submit(lock)
        assert code == 0
        for words in (sync, asked):
            assert " ".join(words).endswith(f"--wheelhouse {lock}")

    def test_what_another_put_on_the_disk_is_not_used(self, tmp_path: Path) -> None:
        lock = write(tmp_path / "lock", "cu126")
        disk = tmp_path / f"bnbenv-{os.getuid()}"
        self.submit(lock)
        assert disk.stat().st_mode & 0o777 == 0o700
        disk.rename(tmp_path / "mine")
        disk.symlink_to(tmp_path / "mine")
        code, asked, told = self.submit(lock)
        assert (code, asked) == (1, [])
        assert f"{disk} is not a directory of yours" in told
        disk.unlink()
        disk.write_text("")
        assert self.submit(lock)[0] == 1

    @pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="gives a directory away")
    def test_a_directory_of_another_user_is_not_used(self, tmp_path: Path) -> None:
        lock = write(tmp_path / "lock", "cu126")
        disk = tmp_path / f"bnbenv-{os.getuid()}"
        disk.mkdir()
        os.chown(disk, 12345, 12345)
        code, asked, told = self.submit(lock)
        assert (code, asked) == (1, [])
        assert "is not a directory of yours" in told


def test_a_build_that_the_matrix_does_not_know_is_given_no_machine(tmp_path: Path) -> None:
    """Nothing says what it computes on, and `sync` would refuse it."""
    with pytest.raises(DataError, match="does not know") as caught:
        export_lock(write(tmp_path / "lock", "cu999"), "dockerfile")
    assert (caught.value.hint or "").endswith(f"bnbenv lock --repack --dir {tmp_path / 'lock'}")
