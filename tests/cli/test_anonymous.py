from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnbenv.cli.anonymous import anonymous

ENVIRON = {
    "HOME": "/home/mlinden",
    "USER": "mlinden",
    "HOSTNAME": "gpu07.cluster.lab",
    "HF_TOKEN": "plain-secret-of-the-hub",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "DB_PASSWORD": "correct horse",
    "MY_CREDENTIALS": "user:pass:word",
}

# What stands in a text, and the parts of it that must not come out.
SECRETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "own home": ("/home/mlinden/envs/qlora/bin/python", ("mlinden",)),
    "another home": ("/home/someone.else/x", ("someone.else",)),
    "home on macOS": ("/Users/Jane Doe/Library", ("Jane", "Doe")),
    "home on Windows": ("C:\\Users\\jdoe\\AppData", ("jdoe",)),
    "home in JSON of Windows": ("C:\\\\Users\\\\jdoe\\\\AppData", ("jdoe",)),
    "home on a network": ("/export/home/jdoe/env", ("jdoe",)),
    "user name": ("uid=1000(mlinden) groups", ("mlinden",)),
    "user in a file address": ("file:///home/jdoe/wheels/a.whl", ("jdoe",)),
    "host": ("node gpu07.cluster.lab, gpu07", ("gpu07",)),
    "user and password": ("https://bob:hunter2@pip.corp.example/simple", ("bob", "hunter2", "corp")),
    "token as user": ("https://glpat-abcdefghijklmnopqrst@git.example/x.git", ("glpat", "git.example")),
    "key in a path": ("https://index.example/t/s3cr3tk3y/simple", ("s3cr3tk3y", "index.example")),
    "key in a query": ("https://a.example/x?X-Amz-Signature=deadbeef&y=1", ("deadbeef",)),
    "sas": ("https://acc.blob.example/c?sv=1&sig=abc%2Fdef", ("acc.blob", "abc%2F")),
    "port and host": ("http://10.1.2.3:8080/simple", ("10.1.2.3",)),
    "git over ssh": ("git@git.corp.example:team/private.git", ("corp", "private")),
    "git+ssh": ("git+ssh://git@git.corp.example/team/private.git@main", ("corp", "private")),
    "s3": ("s3://my-bucket/secret/path", ("my-bucket", "secret")),
    "hub token": ("token hf_" + "aB3" * 10, ("aB3aB3",)),
    "github token": ("ghp_" + "a1B2" * 9, ("a1B2a1B2",)),
    "fine-grained token": ("github_pat_" + "11ABC" * 9, ("11ABC11ABC",)),
    "registry token": ("pypi-" + "AgEIcHlwaS5vcmc" * 4, ("AgEIcHlwaS5vcmcAgE",)),
    "ai key": ("sk-proj-" + "x9Y" * 12, ("x9Yx9Y",)),
    "cloud key": ("AKIAIOSFODNN7EXAMPLE", ("IOSFODNN7",)),
    "chat token": ("xoxb-1234567890-abcdefghij", ("1234567890-abc",)),
    "jwt": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVPmB92K27u", ("eyJzdWIi",)),
    "bearer": ("Authorization: Bearer abc.def.ghi", ("abc.def",)),
    "basic": ("authorization: Basic dXNlcjpwYXNz", ("dXNlcjpwYXNz",)),
    "option": ("--password hunter2222", ("hunter2222",)),
    "assignment": ('MY_API_KEY="abcd1234efgh"', ("abcd1234efgh",)),
    "netrc": ("machine pip.corp.example login bob password hunter2", ("corp", "bob", "hunter2")),
    "private key": (
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
        ("b3Blbn", "AAAA"),
    ),
    "cut private key": ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow", ("MIIEow",)),
    "own token": ("it was plain-secret-of-the-hub", ("plain-secret",)),
    "own key": ("0123456789abcdef0123456789abcdef01234567", ("0123456789abcdef",)),
    "own password": ("pw correct horse battery", ("correct horse",)),
    "own credentials": ("x user:pass:word y", ("user:pass",)),
    "mail": ("written by jane.doe+x@corp.example.org", ("jane", "corp")),
    "address": ("listens on 192.168.17.4 and 10.0.0.7:22", ("192.168.17.4", "10.0.0.7")),
    "address of six": ("fe80:0:0:0:a1b2:c3d4:e5f6:1", ("a1b2",)),
    "hardware address": ("link/ether 52:54:00:12:34:56", ("52:54:00",)),
    "serial number": ("GPU-8f6c1a2b-1234-5678-9abc-def012345678", ("8f6c1a2b",)),
    "colon and blank": ("password: hunter2222", ("hunter2222",)),
    "header of a key": ("X-Api-Key: abcd1234", ("abcd1234",)),
    "key of a cloud": ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", ("wJalr", "K7MDENG")),
    "passphrase": ("passphrase=open sesame", ("open",)),
    "cookie": ("Cookie: session=abcdef123; id=987zyx", ("abcdef123", "987zyx")),
    "temporary key of a cloud": ("ASIAIOSFODNN7EXAMPLE", ("IOSFODNN7",)),
    "key of a service": ("gsk_" + "x9Y" * 12, ("x9Yx9Y",)),
    "key of a mailer": ("SG." + "aB3" * 7 + "." + "cD4" * 14, ("aB3aB3", "cD4cD4")),
    "public key": ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA jane@desk", ("C3NzaC1", "jane")),
    "somebody at a host": ("jane@desk:~$ pip list", ("jane", "desk")),
    "home of WSL": ("/mnt/c/Users/jdoe/AppData", ("jdoe",)),
    "home on a cluster": ("/data/users/jdoe/env and /scratch/jdoe/env", ("jdoe",)),
    "share": ("\\\\fileserver\\jdoe\\x and //fileserver/jdoe/x", ("fileserver", "jdoe")),
    "name in capitals": ("MLINDEN-PC", ("MLINDEN",)),
    "short address of six": ("fe80::1ff:fe23:4567:890a and 2001:db8::7334", ("fe80", "2001")),
    "bare host": ("proxy.corp.internal refused", ("corp",)),
}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("around", ["{}", "- x: {}.", '{{"a": "{}"}}', "'{}',", "({})", "a={}\n"])
def test_it_does_not_come_out(name: str, around: str) -> None:
    text, parts = SECRETS[name]
    out = anonymous(around.format(text), ENVIRON)
    assert [part for part in parts if part in out] == []


@pytest.mark.parametrize(
    "text",
    [
        "nvidia-curand-cu12 10.3.9.90",
        "torch 2.13.0+cu130, bitsandbytes 0.50.2, driver 580.95.05",
        "nvidia-cudnn-cu13: locked 9.1.0.70, installed 9.2.0.82",
        "`libbitsandbytes_cuda130.so` needs libcublas.so.13",
        "NVIDIA GeForce RTX 4090, 8.9, 24564 MiB",
        "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
        "/opt/conda/envs/a/lib/python3.11/site-packages/torch/version.py",
        "bitsandbytes source, cextension.py at the tags",
        "home = /usr/bin",
        "2026-11-25T14:39:41+0000",
        "compat/causes.toml, bitsandbytes#1930",
        "undefined symbol: c10::Error, at::Tensor, std::string",
        "left `~itsandbytes` in /opt/envs/a/lib/python3.11/site-packages; nothing imports them",
        "no token is asked for, and a password is no path",
        "tokenizers >=0.22,<0.24",
    ],
)
def test_facts_stay(text: str) -> None:
    assert anonymous(text, ENVIRON) == text


def test_the_file_of_a_distribution_stays() -> None:
    text = "https://u:p@files.example/a/b/torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl#sha256=ab"
    out = anonymous(text, ENVIRON)
    assert out == "https://<address>/torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl"


def test_common_names_stay_words() -> None:
    environ = {"HOME": "/root", "USER": "root"}
    assert anonymous("the root of /root/.cache", environ) == "the root of ~/.cache"


@given(st.text(max_size=200), st.sampled_from(sorted(SECRETS)), st.text(max_size=200))
def test_between_any_words(before: str, name: str, after: str) -> None:
    text, parts = SECRETS[name]
    out = anonymous(f"{before}\n {text} \n{after}", ENVIRON)
    written = before + after
    assert [part for part in parts if part in out and part not in written] == []


@given(st.text(max_size=2000))
def test_any_text_is_read(text: str) -> None:
    once = anonymous(text, ENVIRON)
    assert isinstance(once, str)
