from __future__ import annotations

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING

import pytest

import _proof

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_bytes(b"one\n")
    (tmp_path / "src" / "b.py").write_bytes(b"two\n")
    return tmp_path


def finished(checkout: Path) -> _proof.Proof:
    proof = _proof.Proof(name="prove_it", covered=_proof.cover(["src/*.py"], root=checkout))
    proof.add("first", {"verdict": "caught"}, seconds=1.25)
    proof.complete = True
    _proof.save(proof, directory=checkout)
    return proof


def test_a_record_reads_back_as_it_was_written(checkout: Path) -> None:
    proof = finished(checkout)
    assert _proof.load("prove_it", directory=checkout) == proof
    assert _proof.dump(proof) == (checkout / "prove_it.json").read_text(encoding="utf-8")


def test_a_finished_record_of_the_same_code_stands(checkout: Path) -> None:
    finished(checkout)
    assert _proof.check("prove_it", ["src/*.py"], root=checkout, directory=checkout) == ()


@pytest.mark.parametrize("change", ["edit", "add", "remove"])
def test_a_record_older_than_its_code_falls(checkout: Path, change: str) -> None:
    finished(checkout)
    match change:
        case "edit":
            (checkout / "src" / "b.py").write_bytes(b"three\n")
        case "add":
            (checkout / "src" / "c.py").write_bytes(b"new\n")
        case _:
            (checkout / "src" / "b.py").unlink()
    (reason,) = _proof.check("prove_it", ["src/*.py"], root=checkout, directory=checkout)
    assert ("src/c.py" if change == "add" else "src/b.py") in reason


def test_line_ends_do_not_make_a_record_old(checkout: Path) -> None:
    finished(checkout)
    (checkout / "src" / "a.py").write_bytes(b"one\r\n")
    assert _proof.check("prove_it", ["src/*.py"], root=checkout, directory=checkout) == ()


def test_misses_and_unfinished_runs_fall(checkout: Path) -> None:
    proof = finished(checkout)
    proof.complete = False
    proof.misses.append("first")
    _proof.save(proof, directory=checkout)
    reasons = _proof.check("prove_it", ["src/*.py"], root=checkout, directory=checkout)
    assert len(reasons) == 2
    assert "first" in reasons[1]


def test_an_unfinished_run_goes_on_and_a_changed_one_starts_anew(checkout: Path) -> None:
    proof = finished(checkout)
    proof.complete = False
    _proof.save(proof, directory=checkout)
    assert "first" in _proof.resume("prove_it", ["src/*.py"], root=checkout, directory=checkout).rows
    (checkout / "src" / "a.py").write_bytes(b"other\n")
    assert _proof.resume("prove_it", ["src/*.py"], root=checkout, directory=checkout).rows == {}


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"schema": 0}', '{"schema": 1}', '{"schema": 1, "name": "prove_it", "covered": {}, "x": 1}'],
    ids=["no JSON", "a list", "another schema", "no keys", "unknown key"],
)
def test_a_broken_record_is_a_reason_and_no_crash(checkout: Path, text: str) -> None:
    (checkout / "prove_it.json").write_text(text, encoding="utf-8")
    assert len(_proof.check("prove_it", ["src/*.py"], root=checkout, directory=checkout)) == 1


def test_a_pattern_that_covers_nothing_is_refused(checkout: Path) -> None:
    with pytest.raises(_proof.ProofError, match="out of date"):
        _proof.cover(["lib/*.py"], root=checkout)


def test_every_row_has_a_line(checkout: Path) -> None:
    proof = finished(checkout)
    proof.add("second", {"verdict": "missed"}, seconds=0.5)
    lines = _proof.dump(proof).splitlines()
    assert sum('"verdict"' in line for line in lines) == 2
    assert json.loads("\n".join(lines))["rows"]["second"] == {"verdict": "missed"}


def options(**given: object) -> argparse.Namespace:
    return argparse.Namespace(**{"sample": None, "only": None, "check": False, **given})


def test_a_broken_run_goes_on_where_it_stopped(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_proof, "resume", partial(_proof.resume, root=checkout, directory=checkout))
    monkeypatch.setattr(_proof, "save", partial(_proof.save, directory=checkout))
    ran: list[str] = []

    def case(name: str, *, problems: tuple[str, ...] = (), dies: bool = False) -> dict[str, object]:
        ran.append(name)
        if dies:
            raise KeyboardInterrupt
        return {"problems": list(problems)}

    cases = {name: partial(case, name) for name in ("a", "b", "c")}
    broken = {**cases, "b": partial(case, "b", dies=True)}
    with pytest.raises(KeyboardInterrupt):
        _proof.go_through(options(), "prove_it", ["src/*.py"], broken)
    assert not _proof.load("prove_it", directory=checkout).complete
    assert _proof.go_through(options(), "prove_it", ["src/*.py"], cases) == 0
    assert ran == ["a", "b", "b", "c"]
    proof = _proof.load("prove_it", directory=checkout)
    assert (proof.complete, proof.counts) == (True, {"cases": 3, "skipped": 0})


def test_what_does_not_hold_is_a_miss(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_proof, "resume", partial(_proof.resume, root=checkout, directory=checkout))
    monkeypatch.setattr(_proof, "save", partial(_proof.save, directory=checkout))
    rows: dict[str, dict[str, list[str]]] = {
        "holds": {"problems": []},
        "does not": {"problems": ["it is wet"]},
    }
    cases = {name: partial(rows.__getitem__, name) for name in rows}
    assert _proof.go_through(options(), "prove_it", ["src/*.py"], cases) == 1
    assert _proof.load("prove_it", directory=checkout).misses == ["does not"]
    assert _proof.go_through(options(only="does not"), "prove_it", ["src/*.py"], cases) == 1
    assert _proof.go_through(options(only="holds"), "prove_it", ["src/*.py"], cases) == 0
