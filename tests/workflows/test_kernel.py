"""`kernel`: what it refuses, and a real kernel that a real Jupyter client starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.main import main
from bnbenv.env.layout import Layout
from bnbenv.env.switch import switch
from bnbenv.errors import EnvironmentProblem, UsageError
from bnbenv.install.uv import find_uv
from bnbenv.workflows.environment import locate
from bnbenv.workflows.install import ChangeRequest
from bnbenv.workflows.kernel import register
from support.schemas import validate
from support.voice import Listener

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bnbenv.env.generation import Generation

# Starts a kernel by name, asks where it works, waits for a word on stdin, and asks again.
CLIENT = """
import sys
from jupyter_client.manager import start_new_kernel
def ask(client):
    out = []
    client.execute_interactive("import sys, os; print(sys.prefix, os.environ['VIRTUAL_ENV'])", timeout=60,
        output_hook=lambda m: out.append(m["content"].get("text", "")))
    return "".join(out).strip()
manager, client = start_new_kernel(kernel_name=sys.argv[1], startup_timeout=60)
try:
    print(ask(client), flush=True)
    sys.stdin.readline()
    print(ask(client), flush=True)
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"""


@pytest.fixture(autouse=True)
def jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    return tmp_path / "jupyter" / "kernels"


def pretend_ipykernel(generation: Generation) -> None:
    site = generation.directory / "lib" / "python3.12" / "site-packages"
    info = site / "ipykernel-7.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: ipykernel\nVersion: 7.0\n", encoding="utf-8")


def test_it_starts_the_link_and_goes_with_the_environment(
    make_environment: Callable[..., Generation], jupyter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_ipykernel(make_environment())
    for words in (
        ["kernel", "install", "qlora", "--dry-run"],
        ["kernel", "install", "qlora"],
        ["kernel", "list"],
        ["kernel", "remove", "qlora", "--dry-run"],
    ):
        assert main([*words, "--json"]) == 0
        validate(json.loads(capsys.readouterr().out))
        assert (jupyter / "bnbenv-qlora").exists() is ("--dry-run" not in words or words[1] == "remove")
    assert main(["remove", "qlora", "--yes"]) == 0
    assert not (jupyter / "bnbenv-qlora").exists()


def test_another_makers_kernel_is_left_alone(
    make_environment: Callable[..., Generation], jupyter: Path, tmp_path: Path
) -> None:
    pretend_ipykernel(make_environment())
    (jupyter / "bnbenv-qlora").mkdir(parents=True)
    with pytest.raises(UsageError, match="did not make"):
        register(locate("qlora", os.environ, tmp_path), ChangeRequest(), Listener(), os.environ)
    assert [*(jupyter / "bnbenv-qlora").iterdir()] == []


def test_one_name_starts_one_environment(make_environment: Callable[..., Generation], tmp_path: Path) -> None:
    for name in ("one", "two"):
        pretend_ipykernel(make_environment(name))
    register(locate("one", os.environ, tmp_path), ChangeRequest(), Listener(), os.environ, name="mine")
    with pytest.raises(UsageError, match="starts"):
        register(locate("two", os.environ, tmp_path), ChangeRequest(), Listener(), os.environ, name="mine")


def test_a_venv_without_ipykernel_is_told_what_it_needs(tmp_path: Path) -> None:
    directory = tmp_path / "my work"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    with pytest.raises(EnvironmentProblem) as caught:
        register(locate(str(directory), os.environ, tmp_path), ChangeRequest(), Listener(), os.environ)
    install = f"uv pip install --python '{directory}/bin/python' ipykernel"
    assert (caught.value.hint or "").startswith(install)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.skipif(sys.platform == "win32", reason="generations are links here")
def test_a_running_kernel_stays_in_its_generation_and_the_next_one_is_in_the_new(
    make_environment: Callable[..., Generation], network_environment: dict[str, str], tmp_path: Path
) -> None:
    environ = {**os.environ, **network_environment}
    uv = find_uv(environ)
    generations = []
    for digest in ("ab" * 6, "cd" * 6):
        made = make_environment("lab", digest=digest)
        uv.run(
            ["venv", str(made.directory), "--allow-existing", "--no-config", "--python", sys.executable],
            environ=environ,
        )
        uv.run(["pip", "install", "--python", str(made.python), "ipykernel"], environ=environ)
        generations.append(made)
    place = Layout.find(os.environ).named("lab")
    switch(place, generations[0])
    register(locate("lab", os.environ, tmp_path), ChangeRequest(), Listener(), os.environ)
    first, second = (f"{it.directory} {it.directory}" for it in generations)

    client = subprocess.Popen(
        [str(generations[0].python), "-c", CLIENT, "bnbenv-lab"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None
    assert client.stdout.readline().strip() == first
    switch(place, generations[1])  # a repair, while it runs
    rest, _ = client.communicate("on\n", timeout=120)
    assert rest.strip() == first
    done = subprocess.run(
        [str(generations[1].python), "-c", CLIENT, "bnbenv-lab"],
        input="on\n", capture_output=True, text=True, cwd=tmp_path, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == [second, second]


def test_a_word_after_list_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernel", "list"]) == 0
    assert main(["kernel", "list", "qlora"]) == 2
    assert "tells of all, not of `qlora`" in capsys.readouterr().err
