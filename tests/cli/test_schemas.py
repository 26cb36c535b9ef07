from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from bnbenv.cli.commands import COMMANDS
from bnbenv.cli.commands.matrix import ACTIONS
from bnbenv.cli.main import main
from bnbenv.env.state import Base
from bnbenv.errors import PROBLEM_CODES
from bnbenv.matrix.load import load
from support.safetensors import LLAMA, write_model
from support.schemas import SCHEMAS, validate

SELF_ACTIONS = import_module("bnbenv.cli.commands.self").ACTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bnbenv.env.generation import Generation

TARGET = ["--gpu", "8.9", "--driver", "580.65.06", "--os", "linux", "--arch", "x86_64", "--glibc", "2.35"]


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main([*words, "--json"])
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    document = json.loads(out)
    validate(document)
    return code, document


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_are_schemas(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$id"] == f"urn:bnbenv:schema:{name}.json"


def nodes(schema: object) -> Iterator[dict[str, Any]]:
    """Every object within, but for the conditions, which describe nothing."""
    if isinstance(schema, dict):
        yield schema
        yield from (node for key, part in schema.items() if key != "if" for node in nodes(part))
    elif isinstance(schema, list):
        yield from (node for part in schema for node in nodes(part))


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_is_described(name: str) -> None:
    told_in_the_envelope = {"data", "status"}  # which the branches narrow
    bare = {
        key
        for node in nodes(SCHEMAS[name])
        for key, part in node.get("properties", {}).items()
        if isinstance(part, dict) and "description" not in part
    }
    assert bare <= told_in_the_envelope


@pytest.mark.parametrize("name", SCHEMAS)
def test_no_object_takes_what_it_does_not_name(name: str) -> None:
    loose = [
        node["required"]
        for node in nodes(SCHEMAS[name])
        if node.get("type") == "object"
        and node.get("required")
        and node.get("additionalProperties", True) is True
    ]
    # An environment's entry is closed where it stands: in `list` alone, in `info` beside what that adds.
    assert len(loose) == {"common": 1, "info": 1}.get(name, 0)


def test_the_codes_of_problems_are_the_closed_list() -> None:
    codes = SCHEMAS["common"]["$defs"]["problem"]["properties"]["code"]["oneOf"]
    assert {row["const"]: row["description"] for row in codes} == PROBLEM_CODES


def test_every_command_has_one() -> None:
    groups = {
        "kernel": ("kernel-install", "kernel-list", "kernel-remove"),
        "lock": ("lock-against", "lock-check", "lock-export"),
        "matrix": tuple(f"matrix-{action}" for action in ACTIONS),
        "self": tuple(f"self-{action}" for action in SELF_ACTIONS),
    }
    wanted = {part for name in COMMANDS for part in (name, *groups.get(name, ()))}
    assert wanted | {"error", "common"} == set(SCHEMAS)


def test_a_wrong_document_is_refused() -> None:
    document = {
        "schema": "bnbenv.path/1",
        "status": "ok",
        "data": {"link": "/a", "path": "/b"},
        "problems": [],
    }
    with pytest.raises(ValidationError, match="'python' is a required property"):
        validate(document)
    with pytest.raises(ValidationError, match="Additional properties"):
        validate({**document, "data": {**document["data"], "python": "/c"}, "more": 1})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["report", "qlora"],
        ["info", "qlora"],
        ["path", "qlora"],
        ["prune"],
        ["clean", "--dry-run"],
        ["kernel", "list"],
        ["rollback", "qlora", "--dry-run"],
        ["remove", "qlora", "--yes"],
        ["self", "schema"],
        ["self", "schema", "create"],
        ["self", "upgrade"],
        ["config"],
        ["config", "set", "link-mode", "copy"],
        ["config", "path"],
        ["completion", "bash"],
        ["self", "uninstall", "--dry-run"],
        ["self", "uninstall", "--yes"],
        ["example", "qlora", "--cpu", *TARGET],
        ["detect"],
        ["matrix", "show"],
        ["matrix", "show", "torch", "2.9.1"],
        ["matrix", "show", "bitsandbytes", "0.46.1"],
        ["matrix", "gpu", "RTX 4090"],
        ["matrix", "check"],
        ["matrix", "show", *TARGET],
        ["matrix", "show", "claims"],
        ["matrix", "diff", "0.46.1", "0.47.0"],
        ["matrix", "diff", "torch", "2.10.0", "2.11.0"],
        ["matrix", "export"],
        ["matrix", "export", "torch", "--csv"],
        ["matrix", "export", "--markdown", "bitsandbytes"],
        ["detect", *TARGET],
        ["resolve", "qlora", *TARGET],
        ["resolve", "qlora", "--explain", *TARGET],
        ["check", "--torch", "2.9.1", "--bitsandbytes", "0.50.2", *TARGET],
        ["why-not", "torch==2.9.1", *TARGET],
        ["why-not", "torch==99.1", *TARGET],
        ["diagnose", str(Path(__file__).parents[1] / "doctor" / "reports" / "rich-traceback.txt")],
        ["diagnose", __file__],
    ],
    ids=" ".join,
)
def test_answers_keep_to_their_schema(
    words: list[str], make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment()
    make_environment()
    code, document = ask(capsys, *words)
    assert (code, document["status"]) == (0, "ok")


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (["info", "nothing"], 4, "no-environment"),
        (["doctor", "nothing"], 4, "no-environment"),
        (["report", "./nothing"], 4, "no-environment"),
        (["path", "qlroa"], 4, "no-environment"),
        (["run", "nothing", "python"], 4, "no-environment"),
        (["shell", "nothing"], 4, "no-environment"),
        (["remove", "../x/y"], 4, "no-environment"),
        (["rollback", "qlora"], 4, "no-environment"),
        (["info", "a b"], 2, "bad-name"),
        (["config", "set", "link-mod", "copy"], 2, "usage"),
        (["config", "set", "pytorch", "http://mirror.example/torch"], 2, "insecure-index"),
        (["create", "--no-generations"], 2, "usage"),
        (["create", "--path", ""], 2, "usage"),
        (["create", "--target", "/nowhere.json"], 2, "bad-target"),
        (["create", "--requirements", "/nowhere.txt"], 2, "bad-request"),
        (["resolve", "qlorra", *TARGET], 2, "bad-request"),
        (["why-not", "torch", *TARGET], 2, "bad-request"),
        (["check", "--torch", "two", "--bitsandbytes", "0.50.2", *TARGET], 2, "bad-request"),
        (["matrix", "show", "numpy"], 2, "usage"),
        (["matrix", "show", "torch", "99.1"], 2, "usage"),
        (["matrix", "diff", "0.46.1"], 2, "usage"),
        (["matrix", "diff", "0.46.1", "9.9"], 2, "usage"),
        (["matrix", "export", "numpy"], 2, "usage"),
        (["matrix", "export", "torch"], 2, "usage"),
        (["matrix", "export", "-o", "/nowhere/matrix.json"], 5, "tool-failed"),
        (["matrix", "export", "-o", "/dev/full"], 5, "disk-full"),
        (["lock", "--check", "--dir", "/nowhere"], 4, "no-environment"),
        (["matrix", "measure"], 2, "usage"),
        (["matrix", "measure", "/nowhere.whl"], 2, "usage"),
        (["matrix", "update", "--offline"], 5, "offline"),
        (["matrix", "measure", "--index", "http://mirror.example/torch"], 2, "insecure-index"),
        (["matrix", "html", "-o", "/nowhere/matrix.html"], 5, "tool-failed"),
        (["example", "gptq", *TARGET], 2, "usage"),
        (["install"], 2, "usage"),
        (["kernel", "remove", "nothing"], 4, "no-environment"),
        (["kernel", "install", "nothing"], 4, "no-environment"),
        (["kernel", "install", "qlora", "--name", "Not A Name"], 2, "bad-name"),
        (["install", "not a req!!"], 2, "bad-request"),
        (["install", "einops", "--in", "nothing"], 4, "no-environment"),
        (["install", "torch", "--in", "qlora"], 2, "usage"),
        (["upgrade", "--in", "nothing"], 4, "no-environment"),
        (["diagnose", "/nowhere.log"], 2, "usage"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors_keep_to_their_schema(
    words: list[str],
    code: int,
    problem: str,
    make_environment: Callable[..., Generation],
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_environment()
    got, document = ask(capsys, *words[:1], "--json", *words[1:])
    assert got == code
    assert [entry["code"] for entry in document["problems"]] == [problem]
    assert document["problems"][0]["hint"]


def test_info_tells_the_base(
    make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    base = Base(
        python="/opt/conda/bin/python",
        packages={"torch": "2.14.1"},
        record="cd" * 32,
        torch="2.14.1",
        directory="/opt/conda/lib/python3.12/site-packages/torch",
        metadata="/opt/conda/lib/python3.12/site-packages/torch-2.14.1.dist-info",
    )
    make_environment(base=base)
    code, document = ask(capsys, "info", "qlora")
    assert (code, document["data"]["base"]["directory"]) == (0, base.directory)


def test_files_are_named_by_their_whole_path(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    _, document = ask(capsys, "verify", "--export-script", "selftest.py")
    assert document["data"]["script"] == str(tmp_path / "selftest.py")
    _, document = ask(capsys, "matrix", "export", "torch", "--csv", "-o", "torch.csv")
    assert document["data"]["file"] == str(tmp_path / "torch.csv")
    _, document = ask(capsys, "example", "qlora", "--cpu", "-o", "train.py")
    assert document["data"]["file"] == str(tmp_path / "train.py")


def test_doctor_tells_what_it_finds(
    make_environment: Callable[..., Generation], capsys: pytest.CaptureFixture[str]
) -> None:
    make_environment()
    code, document = ask(capsys, "doctor", "qlora")
    assert (code, document["status"], document["data"]["healthy"]) == (1, "findings", False)
    first = document["data"]["findings"][0]
    assert first["severity"] == "error"
    commands = [it["remedy"]["commands"] for it in document["data"]["findings"] if it["remedy"]]
    assert ["bnbenv repair qlora"] in commands
    known = {row.id for row in load("causes").causes}
    assert {found["code"] for found in document["data"]["findings"]} <= known


def test_unsolvable_is_exit_3(capsys: pytest.CaptureFixture[str]) -> None:
    code, document = ask(
        capsys,
        "resolve",
        "qlora",
        "--gpu",
        "3.0",
        "--driver",
        "470",
        "--os",
        "linux",
        "--arch",
        "x86_64",
        "--glibc",
        "2.35",
    )
    assert (code, document["status"]) == (3, "unsolvable")
    assert document["data"]["blocking"]


def test_a_combination_that_cannot_work_is_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    code, document = ask(
        capsys, "check", "--torch", "2.9.1+cu128", "--bitsandbytes", "0.42.0", "--gpu", "12.0", *TARGET[2:]
    )
    assert (code, document["status"], document["data"]["works"]) == (1, "findings", False)


def test_what_the_matrix_lacks_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, document = ask(capsys, "check", "--torch", "2.99.0+cu128", "--bitsandbytes", "0.50.2", *TARGET)
    assert (code, document["status"], document["data"]["works"]) == (0, "ok", None)
    assert document["data"]["library"] == "libbitsandbytes_cuda128.so"
    assert [problem["code"] for problem in document["problems"]] == ["notice"]


def test_a_batch_answers_every_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["detect", *TARGET, "--json"])
    target = json.loads(capsys.readouterr().out)["data"]["target"]
    lines = [json.dumps({"id": 7, **target}), "nonsense", "[]", json.dumps(target)]
    (tmp_path / "lines").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert main(["resolve", "qlora", "--batch", str(tmp_path / "lines"), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["status"] for answer in answers] == ["ok", "error", "error", "ok"]
    assert [answer.get("id") for answer in answers] == [7, None, None, None]
    assert set(answers[1]) == {"status", "data", "problems"}


def test_a_batch_that_cannot_be_read_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, document = ask(capsys, "check", "--batch", "/nowhere")
    assert (code, document["problems"][0]["code"]) == (2, "usage")


def test_a_batch_survives_a_line_that_is_no_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b'{"id": 1}\n\xff\n{"id": 3}\n')
    assert main(["resolve", "qlora", "--batch", str(tmp_path / "lines"), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer.get("id") for answer in answers] == [1, None, 3]
    assert "UTF-8" in answers[1]["problems"][0]["message"]


@pytest.mark.parametrize("text", ["{}", "[" * 100_000, '{"schema": 1, "accelerator": 5}', "null"], ids=len)
def test_a_target_that_cannot_be_read_is_named(
    text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "lab.json").write_text(text, encoding="utf-8")
    code, document = ask(capsys, "resolve", "qlora", "--target", str(tmp_path / "lab.json"))
    (problem,) = document["problems"]
    assert (code, problem["code"]) == (2, "bad-target")
    assert "lab.json" in problem["message"]
    assert problem["hint"]


def test_a_setting_that_there_is_not_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, document = ask(capsys, "config", "get", "nope")
    assert (code, document["problems"][0]["code"]) == (2, "usage")
    assert ask(capsys, "config", "get", "pytorch")[0] == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [("--with", "not a req!!"), ("--with", "a b"), ("--exclude-newer", "tomorrow")],
)
def test_what_create_cannot_read_is_told_before_anything_starts(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = ask(capsys, "create", "--dry-run", "--offline", option, value)
    (problem,) = document["problems"]
    assert (code, problem["code"]) == (2, "bad-request")
    assert option in problem["message"]


def test_config_tells_what_is_honoured_of_pip_and_uv(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:hunter22@pip.example/simple")
    monkeypatch.setenv("UV_LINK_MODE", "copy")
    assert main(["config"]) == 0
    out = capsys.readouterr().out
    (pip,) = [line.split() for line in out.splitlines() if "pip.example" in line]
    assert pip == ["index-url", "https://****@pip.example/simple", "variable", "PIP_INDEX_URL"]
    assert ["link-mode", "copy", "variable", "UV_LINK_MODE"] in [line.split() for line in out.splitlines()]


def test_answers_about_a_model_keep_to_their_schema(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path / "model", LLAMA, **{"a.weight": ("BF16", (2, 2))})
    code, document = ask(capsys, "memory", str(model), "--memory", "8", *TARGET)
    assert (code, document["data"]["fit"]) == (0, "fits")
    code, document = ask(capsys, "memory", str(model), "--memory", "0.1", *TARGET)
    assert (code, document["status"], document["data"]["fit"]) == (1, "findings", "does-not-fit")
    code, document = ask(capsys, "memory", str(tmp_path / "none"))
    assert (code, document["problems"][0]["code"]) == (2, "bad-model")
    code, document = ask(capsys, "quantize", str(tmp_path / "none"), str(tmp_path / "out"))
    assert (code, document["problems"][0]["code"]) == (2, "bad-model")
