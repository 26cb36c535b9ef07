from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import _proof
import _selftest_faults as faults
import prove_selftest
from bnbenv.selftest.verdict import Check, Device, Verdict

SOURCES = "".join(
    (_proof.ROOT / "src" / "bnbenv" / "selftest" / name).read_text(encoding="utf-8")
    for name in ("script.py", "train_script.py")
)


@pytest.fixture
def patient(tmp_path: Path) -> prove_selftest.Patient:
    """An environment in which bitsandbytes is a few files and a RECORD that fits them."""
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n", encoding="utf-8")
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    info = site / f"bitsandbytes-{faults.RELEASE}.dist-info"
    info.mkdir(parents=True)
    (site / "bitsandbytes").mkdir()
    files = {
        f"bitsandbytes/{faults.LIBRARY}": bytes(range(1, 256)) * 16,
        "bitsandbytes/functional.py": b"x = 1\nx = 1\n",
        f"{info.name}/METADATA": f"Name: bitsandbytes\nVersion: {faults.RELEASE}\n".encode(),
    }
    rows = []
    for name, content in files.items():
        (site / name).write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        rows.append(f"{name},sha256={digest},{len(content)}\n")
    (info / "RECORD").write_text("".join(rows) + f"{info.name}/RECORD,,\n", encoding="utf-8")
    return prove_selftest.Patient(directory=tmp_path)


def verdict_of(*checks: tuple[str, str]) -> Verdict:
    """A verdict whose checks have these names and states."""
    made = tuple(Check(name=name, dtype="float32", state=state) for name, state in checks)  # type: ignore[arg-type]
    device = Device(device="cpu", name="cpu", judged=True, checks=made)
    outcome = "failed" if any(state in {"failed", "crashed"} for _, state in checks) else "passed"
    return Verdict(verdict=outcome, level="quick", library=None, devices=(device,))  # type: ignore[arg-type]


def test_the_catalogue_is_large_and_each_fault_has_its_own_name() -> None:
    names = [fault.name for fault in faults.FAULTS]
    assert len(names) >= 25
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.name)
def test_the_check_announced_exists(fault: faults.Fault) -> None:
    if fault.catcher == "record":
        assert fault.expected in {"missing", "altered", "truncated"}
    elif fault.expected != "*":
        kind = re.split(r"[/*]", fault.expected.removeprefix("train/"))[0]
        assert f"{kind}/" in SOURCES or f'"{kind}"' in SOURCES


@pytest.mark.parametrize(
    ("after", "expected"), [("", "x = 2\nx = 1\n"), ("x = 1\n", "x = 1\nx = 2\n")], ids=["first", "second"]
)
def test_an_edit_changes_one_place(patient: prove_selftest.Patient, after: str, expected: str) -> None:
    place = faults.Place(package=patient.package, stale=Path(), offset_of=lambda _: 0)
    faults.edit("functional.py", "x = 1", "x = 2", after=after)(place)
    assert (patient.package / "functional.py").read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("after", ["", "y = 1"], ids=["no such text", "no such anchor"])
def test_an_edit_that_does_not_fit_is_refused(patient: prove_selftest.Patient, after: str) -> None:
    place = faults.Place(package=patient.package, stale=Path(), offset_of=lambda _: 0)
    with pytest.raises(faults.PlantError):
        faults.edit("functional.py", "x = 1" if after else "z = 1", "x = 2", after=after)(place)


def test_a_poke_that_changes_nothing_is_refused(patient: prove_selftest.Patient) -> None:
    place = faults.Place(package=patient.package, stale=Path(), offset_of=lambda _: 0)
    with pytest.raises(faults.PlantError):
        faults.poke(faults.single(0.123456, 1.0))(place)


@pytest.mark.parametrize(
    "name",
    ["library-lost-its-end", "library-four-bytes-zeroed", "library-deleted", "library-of-another-release"],
)
def test_record_catches_changed_files_and_they_are_mended(
    patient: prove_selftest.Patient, tmp_path: Path, name: str
) -> None:
    stale = tmp_path / "stale.so"
    stale.write_bytes(bytes(255 * 16))
    library = patient.package / faults.LIBRARY
    before = library.read_bytes()
    fault = next(fault for fault in faults.FAULTS if fault.name == name)
    row = prove_selftest.judge_fault(patient, fault, stale)
    assert row["result"] == "caught", row
    assert library.read_bytes() == before


@pytest.mark.parametrize(
    ("checks", "result"),
    [
        ([("optimizer/AdamW8bit", "failed")], "caught"),
        ([("optimizer/AdamW8bit", "crashed")], "caught"),
        ([("linear4bit/nf4/eval", "failed")], "caught by another"),
        ([("optimizer/AdamW8bit", "known-fault")], "missed"),
        ([("optimizer/AdamW8bit", "not-offered")], "missed"),
        ([("optimizer/AdamW8bit", "passed")], "missed"),
    ],
    ids=["failed", "crashed", "elsewhere", "excused", "not offered", "passed"],
)
def test_what_counts_as_caught(
    patient: prove_selftest.Patient,
    monkeypatch: pytest.MonkeyPatch,
    checks: list[tuple[str, str]],
    result: str,
) -> None:
    monkeypatch.setattr(prove_selftest, "selftest", lambda *_: verdict_of(*checks))
    fault = faults.fault("it", "quick", "optimizer/*", "functional.py", "x = 1", "x = 2")
    assert prove_selftest.judge_fault(patient, fault, Path())["result"] == result


@pytest.mark.parametrize(
    ("checks", "result"),
    [([("levels/nf4", "passed")], "quiet"), ([("levels/nf4", "failed")], "cried wolf")],
    ids=["quiet", "failed"],
)
def test_what_counts_as_a_false_alarm(
    patient: prove_selftest.Patient,
    monkeypatch: pytest.MonkeyPatch,
    checks: list[tuple[str, str]],
    result: str,
) -> None:
    monkeypatch.setattr(prove_selftest, "selftest", lambda *_: verdict_of(*checks))
    assert prove_selftest.judge_release(patient)["result"] == result


def test_misses_are_named() -> None:
    proof = _proof.Proof(name="prove_selftest", covered={})
    for key, result in (("fault/a", "caught"), ("fault/b", "missed"), ("release/1", "cried wolf")):
        proof.add(key, {"result": result}, seconds=1.0)
    prove_selftest.conclude(proof)
    assert proof.misses == ["fault/b", "release/1"]
    assert proof.counts["caught"] == 1


def test_check_answers_without_an_environment() -> None:
    script = Path(prove_selftest.__file__)
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}
    assert "prove_selftest" in done.stdout or "stands" in done.stdout
