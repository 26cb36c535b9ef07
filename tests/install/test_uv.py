from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import BnbenvError, ExternalError
from bnbenv.install.uv import FLOOR, Ran, Uv, cache_directory, find_uv, scrub
from bnbenv.install.uv_errors import uv_problem

if TYPE_CHECKING:
    from collections.abc import Mapping


def fake_uv(path: Path, body: str) -> Path:
    """A program in uv's place that says what a script makes it say."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_the_uv_beside_bnbenv_is_found_and_new_enough(environ: dict[str, str]) -> None:
    from uv import find_uv_bin

    uv = find_uv(environ)
    assert (uv.found, str(uv.path)) == ("package", find_uv_bin())
    assert tuple(int(part) for part in uv.version.split(".")) >= FLOOR
    told = subprocess.run([uv.path, "--version"], capture_output=True, text=True, check=True).stdout
    assert told.split()[1] == uv.version


def test_the_uv_beside_bnbenv_is_asked_for_its_version_where_its_metadata_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    import uv

    found = find_uv(environ)
    monkeypatch.setattr(uv.__spec__, "origin", str(tmp_path / "site-packages" / "uv" / "__init__.py"))
    (tmp_path / "site-packages").mkdir()
    assert find_uv(environ) == found
    (tmp_path / "site-packages").rmdir()
    assert find_uv(environ) == found


def test_another_module_of_that_name_is_no_uv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    (tmp_path / "uv.py").write_text("", encoding="utf-8")
    monkeypatch.delitem(sys.modules, "uv", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    found = find_uv({**environ, "PATH": str(Path(sys.executable).parent)})
    assert found.found == "PATH"


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a shebang")
def test_a_uv_of_the_system_is_not_taken_for_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    """Debian's pip installs under /usr/local; an image may have a uv of its own in /usr/bin."""
    found = find_uv(environ)
    fake_uv(tmp_path / "bin" / "uv", "print('uv 0.1.0')")
    for base in (tmp_path, Path(sys.base_prefix)):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "prefix", str(tmp_path))
            patch.setattr(sys, "base_prefix", str(base))
            assert find_uv(environ) == found


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a shebang")
@pytest.mark.parametrize(
    ("body", "told"),
    [
        pytest.param("print('uv 0.4.30 (somewhere)')", "is 0.4.30", id="too old"),
        pytest.param("sys.exit(3)", "does not run", id="broken"),
        pytest.param("print('another uv')", "does not run", id="another program of that name"),
        pytest.param(None, "none on PATH", id="absent"),
    ],
)
def test_an_unusable_uv_is_refused_with_the_way_to_a_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str | None, told: str
) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)  # as where bnbenv was installed without its dependencies
    if body is not None:
        fake_uv(tmp_path / "uv", body)
    with pytest.raises(ExternalError) as caught:
        find_uv({"PATH": str(tmp_path)})
    assert caught.value.code == "tool-missing"
    assert told in caught.value.message
    assert "uv>=" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "misleading",
    [
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "PYTHONPATH",
        "PYTHONHOME",
        "UV_CONSTRAINT",
        "UV_OVERRIDE",
        "UV_PYTHON",
        "UV_SYSTEM_PYTHON",
        "UV_INDEX_URL",
        "UV_EXTRA_INDEX_URL",
        "UV_TORCH_BACKEND",
        "UV_PRERELEASE",
        "UV_RESOLUTION",
        "UV_EXCLUDE_NEWER",
        "UV_NO_BINARY",
        "UV_PROJECT",
        "UV_WORKING_DIRECTORY",
        "UV_CONFIG_FILE",
        "UV_LINK_MODE",
        "UV_TARGET",
        "UV_A_VARIABLE_OF_THE_FUTURE",
    ],
)
def test_what_misleads_uv_does_not_reach_it(misleading: str) -> None:
    assert misleading not in scrub({misleading: "x", "PATH": "/bin"})


@pytest.mark.parametrize(
    "needed",
    [
        "PATH",
        "HOME",
        "UV_CACHE_DIR",
        "UV_HTTP_TIMEOUT",
        "UV_KEYRING_PROVIDER",
        "UV_INDEX_COMPANY_USERNAME",
        "UV_INDEX_COMPANY_PASSWORD",
        "UV_NATIVE_TLS",
        "HTTPS_PROXY",
        "https_proxy",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "SSL_CLIENT_CERT",
        "NETRC",
    ],
)
def test_where_and_how_reach_uv(needed: str) -> None:
    assert scrub({needed: "x"})[needed] == "x"


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with a shebang")
class TestRun:
    def make(self, tmp_path: Path, body: str, seen: list[Ran] | None = None) -> Uv:
        program = fake_uv(tmp_path / "uv", body)
        log = seen.append if seen is not None else None
        return Uv(path=program, version="0.13.0", found="PATH", log=log)

    def test_progress_is_told_line_by_line_and_redacted(self, tmp_path: Path) -> None:
        seen: list[Ran] = []
        uv = self.make(
            tmp_path,
            "print('  Resolved 3 packages', file=sys.stderr)\n"
            "print(' + idna==3.20', file=sys.stderr)\n"
            "print('from https://joe:s3cret@example.org/simple', file=sys.stderr)",
            seen,
        )
        told: list[str] = []
        uv.run(["pip", "sync"], environ=dict(os.environ), report=told.append)
        assert told == ["Resolved 3 packages", "from https://****@example.org/simple"]
        assert "s3cret" not in repr(seen)
        assert [ran.returncode for ran in seen] == [0]
        assert seen[0].seconds > 0
        assert "idna==3.20" in seen[0].stderr

    def test_an_error_is_no_progress(self, tmp_path: Path) -> None:
        uv = self.make(
            tmp_path,
            "print('Resolved 3 packages\\nerror: it broke\\n  cause: a disk', file=sys.stderr)\nsys.exit(2)",
        )
        told: list[str] = []
        with pytest.raises(ExternalError, match=r"error: it broke\n  cause: a disk"):
            uv.run(["pip", "sync"], environ=dict(os.environ), report=told.append)
        assert told == ["Resolved 3 packages"]

    def test_other_work_is_done_while_uv_works(self, tmp_path: Path) -> None:
        done = tmp_path / "done"
        uv = self.make(
            tmp_path,
            "for _ in range(500):\n"
            f"    if os.path.exists({str(done)!r}): sys.exit()\n"
            "    time.sleep(0.01)\n"
            "sys.exit('nothing was done')",
        )
        uv.run([], environ=dict(os.environ), meanwhile=done.touch)

    def test_where_other_work_fails_uv_is_ended_first(self, tmp_path: Path) -> None:
        number = tmp_path / "number"
        uv = self.make(tmp_path, f"open({str(number)!r}, 'w').write(str(os.getpid())); time.sleep(60)")

        def fail() -> None:
            while not (number.is_file() and number.read_text()):
                time.sleep(0.01)
            raise ExternalError("no room", code="disk-full")

        with pytest.raises(ExternalError, match="no room"):
            uv.run([], environ=dict(os.environ), meanwhile=fail)
        with pytest.raises(ProcessLookupError):
            os.kill(int(number.read_text()), 0)

    def test_a_lock_descriptor_is_open_in_the_child(self, tmp_path: Path) -> None:
        uv = self.make(tmp_path, "os.write(int(sys.argv[1]), b'written by the child')")
        read, write = os.pipe()
        try:
            uv.run([str(write)], environ=dict(os.environ), pass_fds=[write])
            assert os.read(read, 100) == b"written by the child"
        finally:
            os.close(read)
            os.close(write)

    def test_a_descriptor_that_is_not_passed_is_closed_in_the_child(self, tmp_path: Path) -> None:
        uv = self.make(tmp_path, "os.write(int(sys.argv[1]), b'x')")
        read, write = os.pipe()
        try:
            os.set_inheritable(write, True)
            with pytest.raises(ExternalError):
                uv.run([str(write)], environ=dict(os.environ))
        finally:
            os.close(read)
            os.close(write)

    def test_a_lock_outlives_a_killed_parent_as_long_as_uv_runs(self, tmp_path: Path) -> None:
        import fcntl
        import signal

        uv = self.make(tmp_path, "print(os.getpid(), flush=True, file=sys.stderr)\ntime.sleep(60)")
        parent = tmp_path / "parent.py"
        parent.write_text(
            "import fcntl, os\n"
            "from pathlib import Path\n"
            "from bnbenv.install.uv import Uv\n"
            f"lock = open({str(tmp_path / 'lock')!r}, 'w')\n"
            "fcntl.flock(lock, fcntl.LOCK_EX)\n"
            f"uv = Uv(path=Path({str(uv.path)!r}), version='0.13.0', found='PATH')\n"
            "def tell(line): print(line, flush=True)\n"
            "uv.run([], environ=os.environ, pass_fds=[lock.fileno()], report=tell)\n",
            encoding="utf-8",
        )
        source = Path(__file__).parents[2] / "src"
        process = subprocess.Popen(
            [sys.executable, parent],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(source)},
        )
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        process.wait()
        with (tmp_path / "lock").open("w") as lock:
            with pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.kill(child, signal.SIGKILL)
            fcntl.flock(lock, fcntl.LOCK_EX)  # returns once the kernel has ended the child
        process.stdout.close()

    def test_a_signal_is_named(self, tmp_path: Path) -> None:
        uv = self.make(tmp_path, "os.kill(os.getpid(), 9)")
        with pytest.raises(ExternalError, match="ended by signal 9") as caught:
            uv.run(["pip", "sync"], environ=dict(os.environ))
        assert caught.value.code == "tool-failed"

    def test_an_interrupted_wait_leaves_no_child_behind(self, tmp_path: Path) -> None:
        uv = self.make(tmp_path, "print(os.getpid(), file=sys.stderr, flush=True)\ntime.sleep(60)")
        started: list[int] = []

        def interrupt(line: str) -> None:
            started.append(int(line))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            uv.run(["pip", "sync"], environ=dict(os.environ), report=interrupt)
        with pytest.raises(ProcessLookupError):
            os.kill(started[0], 0)


# What uv 0.13.9 writes in these situations; test_compile.py makes them happen.
_HEAD = "error: No solution found when resolving dependencies\n  cause: "
_TAIL = "we can conclude that your requirements are unsatisfiable."
UV_SAID = {
    "conflict": (
        f"{_HEAD}Because all versions of beta depend on gamma==2 and all versions of alpha depend on "
        "gamma==1, we can conclude that all versions of alpha and all versions of beta are incompatible.\n"
        f"         And because bnbenv-request depends on alpha and beta, {_TAIL}"
    ),
    "package-unavailable": (
        f"{_HEAD}Because only alpha==1 is available and bnbenv-request depends on alpha>=2, {_TAIL}"
    ),
    "offline": (
        f"{_HEAD}Because delta was not found in the cache and bnbenv-request depends on delta, {_TAIL}\n\n"
        "hint: Packages were unavailable because the network was disabled. When the network is disabled, "
        "registry packages may only be read from the cache."
    ),
}


@pytest.mark.parametrize(("code", "said"), UV_SAID.items(), ids=UV_SAID)
def test_uvs_words_are_kept_and_coded(code: str, said: str) -> None:
    problem = uv_problem(["pip", "compile", "x"], 1, f"Resolving…\n{said}")
    assert problem.code == code
    assert said in problem.message
    assert "Resolving" not in problem.message
    assert problem.hint


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("error: Failed to download `x`\n  cause: No space left on device (os error 28)", "disk-full"),
        (
            "error: failed to write\n  cause: There is not enough space on the disk. (os error 112)",
            "disk-full",
        ),
        ("error: failed\n  cause: Disk quota exceeded (os error 122)", "disk-full"),
        ("error: Failed\n  cause: Permission denied (os error 13)", "permission"),
        ("error: Failed\n  cause: Read-only file system (os error 30)", "permission"),
        ("error: Failed\n  cause: Hash mismatch for `x==1`", "hash-mismatch"),
        (
            "error: Failed\n  cause: HTTP status client error (403 Forbidden) for url (https://i/)",
            "index-forbidden",
        ),
        ("error: Failed\n  cause: error sending request for url (https://i/)", "index-unreachable"),
        ("error: Failed\n  cause: invalid peer certificate: UnknownIssuer", "index-unreachable"),
        ("error: Failed\n  cause: HTTP status client error (429 Too Many Requests)", "index-unreachable"),
        ("error: Failed\n  cause: HTTP status client error (404 Not Found)", "package-unavailable"),
        ("error: tunnel error: proxy authentication required", "index-forbidden"),
        ("error: Received some unexpected JSON from `https://i/x/`", "index-not-an-index"),
        (
            "error: No solution found\n  hint: `x` was invalid:\n  Failed to read from zip file",
            "index-not-an-index",
        ),
        *(
            (f"error: Failed to extract archive: x.whl\n  Caused by: {cause}", code)
            for cause, code in (
                ("connection reset by peer (os error 104)", "index-unreachable"),
                ("Permission denied (os error 13)", "permission"),
                (
                    "Failed to download due to network timeout. Try increasing UV_HTTP_TIMEOUT",
                    "index-unreachable",
                ),
            )
        ),
        (
            "error: Failed to extract archive: x.whl\n  cause: Invalid zip file structure",
            "index-not-an-index",
        ),
        ("error: something that nobody has seen yet", "tool-failed"),
    ],
)
def test_other_failures_have_their_codes(said: str, code: str) -> None:
    assert uv_problem(["pip", "sync"], 2, said).code == code


@pytest.mark.parametrize(
    ("returncode", "said", "words"),
    [
        (-6, "memory allocation of 15 bytes failed", "too little memory"),
        (-9, "", "too little memory"),
        (2, "error: failed to copy\n  cause: Too many open files (os error 24)", "ulimit -n"),
        (2, "error: failed\n  cause: No space left on device (os error 28)", "df -i"),
        (2, "error: failed\n  cause: Permission denied (os error 13)", "chown"),
    ],
    ids=["aborted", "killed", "open files", "inodes", "another's"],
)
def test_a_limit_that_uv_met_is_named_with_what_raises_it(returncode: int, said: str, words: str) -> None:
    assert words in (uv_problem(["pip", "sync"], returncode, said).hint or "")


def test_a_build_that_imports_what_it_does_not_declare_is_made_beside_the_lock() -> None:
    """Such as flash-attn's, with uv 0.13."""
    said = """error: Failed to build `flash-attn==2.8.3.post2`
  cause: The build backend returned an error

         [stderr]
         ModuleNotFoundError: No module named 'torch'

hint: This error likely indicates that `flash-attn@2.8.3.post2` depends on `torch`, but doesn't declare it
as a build dependency.
If `flash-attn` is a first-party package, consider adding `torch` to its `build-system.requires`.
Otherwise, either add it to your `pyproject.toml` under:

[tool.uv.extra-build-dependencies]
flash-attn = ["torch"]
"""
    problem = uv_problem(["pip", "sync"], 1, said)
    assert problem.code == "tool-failed"
    assert problem.message.endswith("No module named 'torch'")
    assert "bnbenv run NAME -- pip install --no-build-isolation flash-attn" in (problem.hint or "")


def test_no_interpreter_is_an_environment_problem() -> None:
    problem = uv_problem(["venv"], 2, "error: No interpreter found at path `/nowhere/python`")
    assert isinstance(problem, BnbenvError)
    assert problem.exit_code == 4
    assert problem.code == "python-missing"
    assert "bnbenv create --python" in (problem.hint or "")


@pytest.mark.skipif(os.name == "nt", reason="POSIX rule")
@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"UV_CACHE_DIR": "/c", "HOME": "/h"}, "/c"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/uv"),
        ({"HOME": "/h"}, "/h/.cache/uv"),
    ],
)
def test_the_cache_is_where_uv_has_it(environ: Mapping[str, str], expected: str) -> None:
    assert cache_directory(environ) == Path(expected)


@pytest.mark.parametrize("place", ["variable", "uv.toml", "default"])
def test_the_cache_is_where_uv_itself_says_it_is(uv: Uv, environ: dict[str, str], place: str) -> None:
    if place != "variable":
        del environ["UV_CACHE_DIR"]
    config = Path(environ["HOME"]) / ".config" / "uv" / "uv.toml"
    if place == "uv.toml":
        config.parent.mkdir(parents=True)
        config.write_text(f"cache-dir = '{environ['HOME']}/configured'\n", encoding="utf-8")
    plain = subprocess.run(
        [uv.path, "cache", "dir"],
        env=environ,
        check=True,
        capture_output=True,
        text=True,
        cwd=environ["HOME"],
    )
    assert cache_directory(environ, cwd=Path(environ["HOME"])) == Path(plain.stdout.strip())
    driven = uv.run(["cache", "dir", "--no-config"], environ=environ)
    assert driven.stdout == plain.stdout
