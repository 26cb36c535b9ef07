"""`report` as a command, on an environment with a secret in every place that it reads."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from bnbenv.cli.main import main
from support.schemas import validate
from support.sites import add, make_site, site_of

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "hf_" + "aB3" * 10
# Where each is planted, and what must not come out of it.
PLANTED = {
    "home": "mlinden",
    "host": "gpu07",
    "variable": "hunter2",
    "variable's host": "private.example",
    "start-up file": "othername",
    "start-up file's token": TOKEN,
    "address of a package": "git.corp",
    "token of a package": "glpat-abcdefghijklmnopqrst",
    "run": "s3cr3t-of-a-run",
    "run's host": "10.20.30.40",
    "own secret": "plain-secret-of-the-hub",
    "library path": "jdoe",
    "allocator": "jane@corp",
}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home" / "mlinden"
    environment = make_site(home / "envs" / "lab", bitsandbytes=None)
    info = add(site_of(environment), "bitsandbytes", "0.50.2", {"bitsandbytes/__init__.py": b""})
    url = "https://oauth2:glpat-abcdefghijklmnopqrst@git.corp.example/team/private.git"
    (info / "direct_url.json").write_text(json.dumps({"url": url, "vcs_info": {"vcs": "git"}}))
    (home / ".bashrc").write_text(
        f"export BNB_CUDA_VERSION={TOKEN}\nexport BNB_ROCM_VERSION=/home/othername/x\n"
    )
    runs = home / "bnbenv" / "runs"
    runs.mkdir(parents=True)
    (runs / "20261125T120000-1.log").write_text(
        "bnbenv create --index https://bob:s3cr3t-of-a-run@10.20.30.40/simple\npassword: s3cr3t-of-a-run\n"
    )
    for name, value in {
        "HOME": str(home),
        "USER": "mlinden",
        "HOSTNAME": "gpu07.cluster.lab",
        "BNBENV_HOME": str(home / "bnbenv"),
        "BNB_CUDA_VERSION": "https://bob:hunter2@private.example/x",
        "LD_LIBRARY_PATH": "/nfs/users/jdoe/cuda/lib64",
        "PYTORCH_ALLOC_CONF": "backend:native,by:jane@corp",
        "HF_TOKEN": "plain-secret-of-the-hub",
        "CUDA_HOME": "/opt/plain-secret-of-the-hub",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return environment


def test_nothing_planted_comes_out(environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(environment)]) == 0
    text = capsys.readouterr().out
    assert [where for where, secret in PLANTED.items() if secret in text] == []
    if len(socket.gethostname()) > 3:
        assert socket.gethostname() not in text
    # It was read, every place of it.
    for kept in ("source-build-no-native-lib", ".bashrc", "LD_LIBRARY_PATH", "bnbenv create", "CUDA_HOME"):
        assert kept in text, kept
    assert "installed from https://<address>" in text
    assert "torch 2.13.0+cpu" in text


# Credentials are taken out of all that bnbenv prints; these, only of a report.
OF_A_REPORT = {
    "home",
    "variable's host",
    "start-up file",
    "address of a package",
    "run's host",
    "library path",
    "allocator",
}


def test_what_was_planted_is_there(environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without what takes it out, it does come out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bnbenv.cli.anonymous.anonymous", lambda text, *_, **__: text)
        assert main(["report", str(environment)]) == 0
    text = capsys.readouterr().out
    assert {where for where, secret in PLANTED.items() if secret in text} >= OF_A_REPORT


def test_json(environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(environment), "--json"]) == 0
    out = capsys.readouterr().out
    answer = json.loads(out)
    validate(answer)
    assert answer["data"]["healthy"] is False
    assert [where for where, secret in PLANTED.items() if secret in out] == []
