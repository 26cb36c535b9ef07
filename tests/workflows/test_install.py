"""`install` and `upgrade` on stand-ins that compute nothing: the self-test is said to have passed.

Everything else is real: uv, the judge, an index on loopback, generations and the switch. Real packages are
installed by `scripts/prove_guard.py`.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.cli.main import main
from bnbenv.env import generation, state, switch
from bnbenv.env.generation import list_generations
from bnbenv.env.installed import read_installed
from bnbenv.env.layout import Layout
from bnbenv.env.switch import current
from bnbenv.errors import EnvironmentProblem, ExternalError, Interrupted, UnsolvableError, UsageError
from bnbenv.lockfile.pylock import Package, Pylock
from bnbenv.selftest.verdict import Verdict
from bnbenv.workflows import realise
from bnbenv.workflows.create import create
from bnbenv.workflows.environment import locate
from bnbenv.workflows.install import ChangeRequest, differences, install, upgrade
from bnbenv.workflows.request import CreateRequest, Wanted
from support.profile_index import MINOR, profile_index, write_bitsandbytes, write_torch
from support.schemas import validate
from support.voice import Listener
from support.wheels import write_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MORE = {
    "transformers": "5.20.1" if MINOR == "3.10" else "5.22.0",
    "einops": "0.7.0",
    "autoawq": "0.2.9",
    "torchao": "0.15.0",
}

PLAIN = "uv venv lab-{0}; uv pip install --python lab-{0} {1}"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64",
    reason="the stand-ins are tagged for x86-64 Linux",
)


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the self-test will say, in order; the last word is repeated."""
    words = ["passed"]

    def prove(*_: Any, **__: Any) -> Verdict:
        word = words.pop(0) if len(words) > 1 else words[0]
        return Verdict(verdict=word, level="quick", library=None, devices=())  # type: ignore[arg-type]

    monkeypatch.setattr(realise, "prove", prove)
    return words


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdicts: list[str]) -> Iterator[Path]:
    """An index with stand-ins, the environment `lab` made from it, and no other index in reach."""
    del verdicts
    directory = tmp_path / "wheels"
    for name, version in MORE.items():
        write_wheel(directory, name, version)
    write_wheel(directory, "einops", "0.8.0")
    write_bitsandbytes(directory, "0.49.2")
    write_torch(directory, "2.12.0+cpu")
    write_wheel(directory, "pinner", "1.0", requires=["torch==2.12.0"])
    write_wheel(directory, "behind", "1.0", requires=["torchao==0.15.0"])
    with profile_index(tmp_path, monkeypatch):
        wanted = Wanted(
            profile="qlora", cpu=True, python=MINOR, without_index=("pytorch",), bitsandbytes=">=0.46.1"
        )
        create(CreateRequest(wanted=wanted, name="lab", cwd=tmp_path), Listener(), os.environ)
        yield directory


def versions() -> dict[str, str]:
    return read_installed(locate("lab", os.environ, Layout.find(os.environ).home).directory).versions


def request_of_lab() -> dict[str, Any]:
    found = current(Layout.find(os.environ).named("lab"))
    assert found is not None
    return dict(state.read(found.state_file).request)


def do(
    what: Any, *packages: str, cwd: Path, voice: Listener | None = None, name: str = "lab", **more: Any
) -> Any:
    located = locate(name, os.environ, cwd)
    return what(located, ChangeRequest(packages=packages, cwd=cwd, **more), voice or Listener(), os.environ)


def test_install_adds_to_the_environment_and_to_its_request(wheels: Path, tmp_path: Path) -> None:
    before = versions()
    # A newer release on the index is none of this command's business.
    write_wheel(wheels, "peft", "0.21.9")
    changed = do(install, "einops<0.8", cwd=tmp_path)
    assert [str(change) for change in changed.changes] == ["einops 0.7.0"]
    assert versions() == {**before, "einops": "0.7.0"}
    assert request_of_lab()["packages"] == ["einops<0.8"]
    do(install, "einops", cwd=tmp_path)
    assert request_of_lab()["packages"] == ["einops"]  # asked for anew, not twice


def test_a_change_lets_a_junction_follow(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del wheels
    mended: list[str] = []
    monkeypatch.setattr(switch, "mend", lambda place: mended.append(place.name))
    do(install, "einops", cwd=tmp_path)
    assert mended == ["lab"]


def test_what_the_user_had_added_by_pip_comes_along(wheels: Path, tmp_path: Path) -> None:
    located = locate("lab", os.environ, tmp_path)
    site = read_installed(located.directory).site_packages[0]
    (site / "mine.py").write_text("", encoding="utf-8")
    changed = do(install, "einops", cwd=tmp_path)
    assert changed.carried.files == [str((site / "mine.py").relative_to(located.directory))]
    assert (locate("lab", os.environ, tmp_path).directory / changed.carried.files[0]).exists()
    del wheels


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("no-such-package", "check the spelling, or name an index that has it"),
        ("wants-nothing", "check the spelling, or name an index that has it"),
        ("einops>=99", "ask for a version that exists for this Python and platform"),
        ("elsewhere", "ask for a version that exists for this Python and platform"),
    ],
)
def test_what_no_index_has_would_be_no_better_in_an_environment_of_its_own(
    wheels: Path, tmp_path: Path, text: str, advice: str
) -> None:
    write_wheel(wheels, "wants-nothing", "1.0", requires=["no-such-package"])
    write_wheel(wheels, "elsewhere", "1.0", tag="cp27-cp27m-win32")
    with pytest.raises(ExternalError) as caught:
        do(install, text, cwd=tmp_path)
    assert caught.value.code == "package-unavailable"
    assert caught.value.message.startswith(f"`{text}` cannot be had for `lab`:")
    assert (caught.value.hint or "").startswith(advice)


def test_what_is_there_is_not_built_anew(wheels: Path, tmp_path: Path) -> None:
    del wheels
    do(install, "einops", cwd=tmp_path)
    before = locate("lab", os.environ, tmp_path).directory
    assert do(install, "einops", cwd=tmp_path).realised is None
    assert locate("lab", os.environ, tmp_path).directory == before


def test_a_dry_run_and_a_no_change_nothing(wheels: Path, tmp_path: Path) -> None:
    del wheels
    before = versions()
    assert do(install, "einops", cwd=tmp_path, dry_run=True).changes
    with pytest.raises(Interrupted):
        do(install, "einops", cwd=tmp_path, voice=Listener(agrees=False))
    assert versions() == before


def test_what_another_command_added_at_the_question_stays(wheels: Path, tmp_path: Path) -> None:
    del wheels

    class Slow(Listener):
        def confirm(self, question: str, *, yes: bool = False) -> bool:
            do(install, "autoawq", cwd=tmp_path, anyway=True)
            return super().confirm(question, yes=yes)

    with pytest.raises(EnvironmentProblem, match="`lab` was changed by another command") as caught:
        do(install, "einops", cwd=tmp_path, voice=Slow())
    assert caught.value.code == "locked"
    assert "autoawq" in versions()
    assert request_of_lab()["packages"] == ["autoawq"]


def test_what_is_removed_at_the_question_is_not_made_anew(wheels: Path, tmp_path: Path) -> None:
    del wheels

    class Slow(Listener):
        def confirm(self, question: str, *, yes: bool = False) -> bool:
            assert main(["remove", "lab", "--yes"]) == 0
            return super().confirm(question, yes=yes)

    with pytest.raises(EnvironmentProblem, match="`lab` was changed by another command"):
        do(install, "einops", cwd=tmp_path, voice=Slow())


def test_a_shell_of_the_generation_before_changes_the_current_one(wheels: Path, tmp_path: Path) -> None:
    del wheels
    before = locate("lab", os.environ, tmp_path)
    do(install, "einops", cwd=tmp_path)
    asked = ChangeRequest(packages=("autoawq",), anyway=True, cwd=tmp_path)
    install(locate(str(before.directory), os.environ, tmp_path), asked, Listener(), os.environ)
    assert {"einops", "autoawq"} <= set(versions())


def test_as_many_generations_stay_as_the_configuration_keeps(wheels: Path, tmp_path: Path) -> None:
    del wheels
    assert main(["config", "set", "keep", "2"]) == 0
    for text in ("einops==0.7.0", "einops==0.8.0", "einops==0.7.0"):
        do(install, text, cwd=tmp_path)
    assert len(list_generations(Layout.find(os.environ).named("lab"))) == 3


def test_an_old_generation_that_cannot_be_deleted_fails_no_build(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise ExternalError("cannot remove it: permission denied", code="permission")

    del wheels
    monkeypatch.setattr(generation, "prune", refused)
    voice = Listener()
    assert do(install, "einops", cwd=tmp_path, voice=voice).realised.changed
    assert "einops" in versions()
    assert "old generations are left there: cannot remove it: permission denied" in voice.heard


def test_a_conflict_says_who_wants_what_and_offers_an_environment(wheels: Path, tmp_path: Path) -> None:
    del wheels
    before = versions()
    with pytest.raises(ExternalError) as caught:
        do(install, "pinner", cwd=tmp_path)
    assert caught.value.code == "conflict"
    assert "pinner depend on torch==2.12.0" in " ".join(caught.value.message.split())
    assert "torch 2.13.0+cpu" in caught.value.message
    assert caught.value.hint == f"{PLAIN.format('pinner', 'pinner')} (an environment without a profile)"
    assert versions() == before


@pytest.mark.parametrize(
    ("what", "text", "name"),
    [
        (install, "transformers<5", "transformers"),
        (upgrade, "transformers<5", "transformers"),
        (upgrade, "peft==0.10", "peft"),
    ],
)
def test_the_profile_that_refused_is_not_proposed(
    wheels: Path, tmp_path: Path, what: Any, text: str, name: str
) -> None:
    for package, release in (("transformers", "4.57.0"), ("peft", "0.10")):
        write_wheel(wheels, package, release)
    with pytest.raises(ExternalError) as caught:
        do(what, text, cwd=tmp_path)
    shown = text if text == "peft==0.10" else f"'{text}'"
    assert caught.value.hint == f"{PLAIN.format(name, shown)} (an environment without a profile)"


def test_the_profile_is_proposed_where_only_what_else_is_here_refuses(wheels: Path, tmp_path: Path) -> None:
    do(install, "einops==0.7.0", cwd=tmp_path)
    write_wheel(wheels, "wants-new", "1.0", requires=["einops>=0.8"])
    with pytest.raises(ExternalError) as caught:
        do(install, "wants-new", cwd=tmp_path)
    command = "bnbenv create qlora --name lab-wants-new --with wants-new"
    assert caught.value.hint == f"{command} (an environment of its own)"
    assert main([*shlex.split(command)[1:], "--cpu", "--dry-run", "--json"]) == 0


def test_what_the_profile_keeps_apart_and_no_other_serves_goes_into_a_plain_environment(
    wheels: Path, tmp_path: Path
) -> None:
    del wheels
    with pytest.raises(UnsolvableError, match="`vllm` does not belong") as caught:
        do(install, "vllm", cwd=tmp_path)
    assert caught.value.hint == (
        f"{PLAIN.format('vllm', 'vllm')} (an environment without a profile), or --anyway"
    )


@pytest.mark.parametrize(
    ("package", "culprit", "told"),
    [
        ("autoawq", "autoawq", "nothing that stands here"),
        ("behind", "torchao", "peft raises"),
    ],
)
def test_a_hazard_is_refused_with_its_mechanism_and_recorded_if_wanted_anyway(
    wheels: Path, tmp_path: Path, package: str, culprit: str, told: str
) -> None:
    del wheels
    before = versions()
    with pytest.raises(UnsolvableError) as caught:
        do(install, package, cwd=tmp_path)
    assert caught.value.code == "hazard"
    assert told in caught.value.message
    assert "--anyway" in (caught.value.hint or "")
    assert versions() == before
    changed = do(install, package, cwd=tmp_path, anyway=True)
    assert culprit in changed.let_in
    assert request_of_lab()["anyway"] == [culprit]
    assert culprit in versions()
    # From here on it is part of the environment, and the guard lets it be.
    assert do(install, "einops", cwd=tmp_path).let_in == {}


def test_a_package_no_longer_developed_is_refused_with_its_profile_and_its_successor(
    wheels: Path, tmp_path: Path
) -> None:
    del wheels
    with pytest.raises(UnsolvableError, match=r"auto-gptq, which ended with .* does not import") as caught:
        do(install, "auto-gptq", cwd=tmp_path)
    assert caught.value.hint == (
        "bnbenv create gptq-legacy (an environment of its own; gptqmodel, profile gptq, is the maintained "
        "successor of auto-gptq), or --anyway"
    )


def test_bitsandbytes_stays_out_of_an_environment_for_another_family(wheels: Path, tmp_path: Path) -> None:
    del wheels
    definition = {"packages": {"einops": ""}, "excludes": ["bitsandbytes"]}
    wanted = Wanted(
        profile="other", definition=definition, cpu=True, python=MINOR, without_index=("pytorch",)
    )
    asked = CreateRequest(wanted=wanted, name="other", cwd=tmp_path)
    with pytest.raises(UnsolvableError, match=r"`bitsandbytes` does not belong .* other keeps it apart"):
        create(replace(asked, wanted=replace(wanted, packages=("bitsandbytes",))), Listener(), os.environ)
    create(asked, Listener(), os.environ)
    for what, text in ((install, "bitsandbytes"), (install, "bitsandbytes>=0.49"), (upgrade, "bitsandbytes")):
        with pytest.raises(UnsolvableError) as caught:
            do(what, text, name="other", cwd=tmp_path)
        assert caught.value.code == "hazard"
        assert caught.value.hint == "bnbenv create qlora (an environment of its own), or --anyway"
    with pytest.raises(UsageError, match="has no bitsandbytes"):
        do(upgrade, "bitsandbytes==0.50.2", name="other", cwd=tmp_path)
    changed = do(install, "bitsandbytes", name="other", cwd=tmp_path, anyway=True)
    assert set(changed.let_in) == {"bitsandbytes"}


def test_torch_is_not_installed_but_chosen(wheels: Path, tmp_path: Path) -> None:
    del wheels
    with pytest.raises(UsageError) as caught:
        do(install, "torch==2.12.0", cwd=tmp_path)
    assert caught.value.hint == "bnbenv upgrade 'torch==2.12.0' --in lab"


def test_upgrade_takes_one_package_and_leaves_the_rest(wheels: Path, tmp_path: Path) -> None:
    do(install, "einops==0.7.0", cwd=tmp_path)
    write_wheel(wheels, "peft", "0.21.9")
    changed = do(upgrade, "einops>0.7", cwd=tmp_path)
    assert [str(change) for change in changed.changes] == ["einops 0.7.0 → 0.8.0"]
    changed = do(upgrade, " Peft", cwd=tmp_path)
    assert [str(change) for change in changed.changes] == ["peft 0.21.2 → 0.21.9"]
    assert request_of_lab()["packages"] == ["einops>0.7"]


@pytest.mark.usefixtures("wheels", "login_node")
def test_a_login_node_is_told_the_options_of_upgrade(tmp_path: Path) -> None:
    found = current(Layout.find(os.environ).named("lab"))
    assert found is not None
    data = json.loads(found.state_file.read_bytes())
    del data["request"]["cpu"]
    found.state_file.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(UnsolvableError) as caught:
        do(upgrade, "torch", cwd=tmp_path)
    hint = caught.value.hint or ""
    assert hint.startswith("the same line with --gpu ")
    assert hint.endswith("or the same line where the GPU can be used")


@pytest.mark.parametrize("text", ["eniops", "eniops>=0.8"])
def test_upgrade_takes_nothing_for_what_is_not_there(wheels: Path, tmp_path: Path, text: str) -> None:
    del wheels
    with pytest.raises(UsageError, match="`eniops` is not in the lock of `lab`") as caught:
        do(upgrade, text, cwd=tmp_path)
    assert caught.value.code == "bad-request"
    shown = text if text == "eniops" else f"'{text}'"
    assert caught.value.hint == f"bnbenv install {shown} --in lab"


def test_upgrade_of_torch_asks_the_judge_and_is_remembered(wheels: Path, tmp_path: Path) -> None:
    del wheels
    do(upgrade, "torch==2.12.0", cwd=tmp_path)
    assert versions()["torch"] == "2.12.0+cpu"
    assert request_of_lab()["torch"] == "==2.12.0"
    guard = locate("lab", os.environ, tmp_path).directory / ".bnbenv" / "guard" / "constraints.txt"
    assert "torch===2.12.0+cpu\n" in guard.read_text(encoding="utf-8")
    do(upgrade, "torch", cwd=tmp_path)
    assert versions()["torch"] == "2.13.0+cpu"
    assert "torch" not in request_of_lab()


def test_what_there_is_to_fetch_is_told_before_the_question(wheels: Path, tmp_path: Path) -> None:
    del wheels
    voice = Listener()
    do(upgrade, "torch==2.12.0", cwd=tmp_path, voice=voice)
    (place,) = [number for number, line in enumerate(voice.heard) if " to fetch, " in line]
    assert place < voice.heard.index("build `lab` anew with them?")


def test_a_disk_that_is_too_small_is_told_before_the_question(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del wheels
    monkeypatch.setattr("bnbenv.install.size.shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    voice = Listener()
    with pytest.raises(ExternalError, match="too little space") as caught:
        do(install, "einops", cwd=tmp_path, voice=voice)
    assert caught.value.code == "disk-full"
    assert "build `lab` anew with them?" not in voice.heard
    do(install, "einops", cwd=tmp_path, dry_run=True)


def test_a_wheelhouse_that_is_not_there_is_told(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del wheels
    monkeypatch.setenv("PIP_FIND_LINKS", f"{os.environ.get('PIP_FIND_LINKS', '')} {tmp_path / 'gone'}")
    voice = Listener()
    do(upgrade, "torch==2.12.0", cwd=tmp_path, voice=voice)
    assert f"`{tmp_path / 'gone'}` (variable PIP_FIND_LINKS) does not exist and is left out" in voice.heard


def test_the_link_mode_of_uv_is_kept(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del wheels
    monkeypatch.setenv("UV_LINK_MODE", "copy")
    changed = do(install, "einops", cwd=tmp_path)
    assert changed.realised.link_mode.mode == "copy"


def test_upgrade_of_everything(wheels: Path, tmp_path: Path) -> None:
    write_wheel(wheels, "peft", "0.21.9")
    assert [str(change) for change in do(upgrade, cwd=tmp_path).changes] == ["peft 0.21.2 → 0.21.9"]


def test_what_all_else_rests_on_stands_first_among_the_changes() -> None:
    before = lock_of(accelerate="1.14.0", torch="2.13.0+cpu", bitsandbytes="0.49.2", six="1.17.0")
    after = lock_of(accelerate="1.15.0", torch="2.12.0+cpu", bitsandbytes="0.50.2")
    changes, removed = differences(before, after, ("3.11", "3.13"))
    assert [str(change) for change in changes] == [
        "python 3.11 → 3.13",
        "torch 2.13.0+cpu → 2.12.0+cpu",
        "bitsandbytes 0.49.2 → 0.50.2",
        "accelerate 1.14.0 → 1.15.0",
    ]
    assert removed == {"six": "1.17.0"}


def lock_of(**versions: str) -> Pylock:
    packages = tuple(
        Package(name=name, version=version, marker=None, index=None, artefacts=())
        for name, version in versions.items()
    )
    return Pylock(origin="", document={}, packages=packages, digest="")


@pytest.mark.parametrize(
    "words", [["install", "einops"], ["upgrade"], ["upgrade", "peft", "--dry-run"]], ids=" ".join
)
def test_the_commands_answer_by_their_schema(
    wheels: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    del wheels
    assert main([*words, "--in", "lab", "--yes", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    validate(document)
    assert document["data"]["changed"] is (words[0] == "install")


def test_what_does_not_compute_is_not_switched_to(wheels: Path, tmp_path: Path, verdicts: list[str]) -> None:
    del wheels
    before = locate("lab", os.environ, tmp_path).directory
    verdicts[:] = ["failed"]
    changed = do(install, "einops", cwd=tmp_path)
    assert changed.realised.verdict.verdict == "failed"
    assert locate("lab", os.environ, tmp_path).directory == before
    assert len([*before.parent.glob("*-*")]) == 1


def test_what_does_not_compute_leaves_a_plain_directory_unfinished(
    wheels: Path, tmp_path: Path, verdicts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    del wheels
    image = tmp_path / "image"
    wanted = Wanted.from_dict(request_of_lab())
    create(
        CreateRequest(wanted=wanted, name="image", path=image, generations=False, cwd=tmp_path),
        Listener(),
        os.environ,
    )
    verdicts[:] = ["failed"]
    assert main(["install", "einops", "--in", str(image), "--yes", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    (problem,) = document["problems"]
    assert problem["message"].endswith("the directory is changed, and of no use until it is made anew")
    anew = f"bnbenv create qlora --path {image} --no-generations"
    assert problem["hint"] == anew
    for words in (["path", str(image)], ["install", "einops", "--in", str(image), "--yes"]):
        assert main([*words, "--json"]) == 4
        (problem,) = json.loads(capsys.readouterr().out)["problems"]
        assert problem["message"] == f"`{image}` was begun and never finished: it cannot be used"
        assert problem["hint"] == f"`bnbenv create PROFILE --path {image} --no-generations` makes it anew"


def test_a_plain_directory_needs_room_for_what_comes(wheels: Path, tmp_path: Path) -> None:
    del wheels
    image, voice = tmp_path / "image", Listener()
    wanted = Wanted.from_dict(request_of_lab())
    asked = CreateRequest(wanted=wanted, name="image", path=image, generations=False, cwd=tmp_path)
    create(asked, Listener(), os.environ)
    do(install, "einops", name=str(image), cwd=tmp_path, voice=voice)
    [told] = [line for line in voice.heard if " in uv's cache" in line or " to fetch" in line]
    assert told.startswith("1 package")


def test_a_failure_in_a_plain_directory_says_what_is_left(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ExternalError("the disk is gone")

    del wheels
    image = tmp_path / "image"
    asked = CreateRequest(
        wanted=Wanted.from_dict(request_of_lab()), name="image", path=image, generations=False, cwd=tmp_path
    )
    monkeypatch.setattr(realise, "prove", fail)
    voice = Listener()
    with pytest.raises(ExternalError, match="the disk is gone"):
        create(asked, voice, os.environ)
    assert voice.heard[-1] == f"`{image}` is left unfinished, and of no use until it is made anew"
    assert image.is_dir()


def test_an_environment_of_somebody_elses_has_no_lock_to_add_to(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    located = locate(str(tmp_path / "venv"), os.environ, tmp_path)
    with pytest.raises(EnvironmentProblem, match="was not made by bnbenv"):
        install(located, ChangeRequest(packages=("einops",)), Listener(), os.environ)
