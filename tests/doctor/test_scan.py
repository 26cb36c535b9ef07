from __future__ import annotations

import re
import subprocess
import sys

import pytest

from bnbenv.doctor.scan import Scanner
from bnbenv.doctor.text import LONGEST, Block, blocks_of
from bnbenv.matrix.load import load
from bnbenv.matrix.rows import Provenance, Symptom

SYMPTOMS = load("symptoms").symptoms


def symptom(kind: str = "failure", pattern: str = r"No module named 'triton\.ops") -> Symptom:
    return Symptom(
        id="s",
        kind=kind,  # type: ignore[arg-type]
        literals=("triton.ops",),
        pattern=pattern,
        provenance=Provenance(how="published", source="test", checked="2026-11-25"),
    )


def found(text: str, *rows: Symptom) -> list[int]:
    return [
        hit.line for hit in Scanner(rows or (symptom(),)).scan(blocks_of([text.encode()])).hits.get("s", [])
    ]


def test_a_line_is_found_by_its_number() -> None:
    assert found("a\nb\nModuleNotFoundError: No module named 'triton.ops'\n") == [3]


def test_a_line_that_a_terminal_broke_is_found() -> None:
    head = "RuntimeError: Failed to import transformers.integrations because: No module"
    assert found(f"x\n{head}\nnamed 'triton.ops'\n") == [2]
    assert found(f"{head} named 'trit\non.ops'\n") in ([1], [])  # the literal itself is broken


@pytest.mark.parametrize(
    "prose",
    [
        "I read about No module named 'triton.ops' elsewhere.",
        "Unlike others I do not get No module named 'triton.ops'.",
        "After upgrading, No module named 'triton.ops' is gone.",
        "Is there a fix for No module named 'triton.ops'?",
    ],
)
def test_prose_that_tells_of_a_failure_is_not_one(prose: str) -> None:
    assert found(prose) == []


@pytest.mark.parametrize(
    "prose",
    [
        "I get No module named 'triton.ops' when I start it.",
        "It fails with: No module named 'triton.ops'",
        "No module named 'triton.ops'",
    ],
)
def test_prose_that_shows_a_failure_is_one(prose: str) -> None:
    assert found(prose) == [1]


def test_a_statement_below_its_frame_belongs_to_a_traceback() -> None:
    statement = "    raise ImportError(\"No module named 'triton.ops'\")\n"
    assert found(f'  File "/e/triton_based_modules.py", line 7, in <module>\n{statement}') == [2]
    assert found(f"if not installed:\n{statement}") == []
    assert found(f"@@ -1,2 +1,2 @@\n+   {statement}") == []


def test_repeated_lines_are_looked_at_a_few_times_only() -> None:
    row = symptom(kind="fact", pattern=r"triton\.ops (?P<triton>\d)")
    text = "".join(f"triton.ops {number}\n" for number in range(1000))
    assert len(found(text, row)) == 24
    assert len(found("triton.ops none\n" * 1000 + "triton.ops 5\n", row)) == 1


def test_positions_survive_letters_whose_lower_form_is_longer() -> None:
    assert found("İİİİ\nİ No module named 'triton.ops'\n") == [2]


def test_a_symptom_at_the_end_of_much_noise_is_found() -> None:
    noise = "".join(f"{{'loss': {number / 7:.4f}, 'epoch': {number}}}\n" for number in range(60_000))
    scanner = Scanner(SYMPTOMS)
    seen = scanner.scan(blocks_of([noise.encode(), b"ModuleNotFoundError: No module named 'triton.ops'\n"]))
    assert [hit.line for hit in seen.hits["triton-ops"]] == [60_001]
    assert seen.lines == 60_001


def hostile(literal: str) -> list[str]:
    """Lines that make a careless pattern try every way."""
    fill = [literal, f"{literal} ", f"{literal}/", "/a", "1.", " ", "a", "(", '"', "\\", "_"]
    lines = [(part * (LONGEST // len(part)))[:LONGEST] for part in fill]
    return [*lines, *(literal + line[: LONGEST - len(literal)] for line in lines[3:])]


HOSTILE = """
import sys
sys.path[:0] = sys.argv[1:3]
from test_scan import SYMPTOMS, hostile
import re
tried = 0
for row in SYMPTOMS:
    pattern = re.compile(row.pattern, re.IGNORECASE)
    for literal in row.literals[:1]:
        for line in hostile(literal):
            tried += sum(1 for _ in pattern.finditer(line)) >= 0
print(tried)
"""


def test_no_pattern_is_catastrophic() -> None:
    """A pattern that backtracks without bound would never end; the limit is a guard, not a measure."""
    ran = subprocess.run(
        [sys.executable, "-c", HOSTILE, str(__import__("pathlib").Path(__file__).parent), ""],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 2000


def test_the_patterns_have_bounded_repeats_and_literals_of_their_own() -> None:
    for row in SYMPTOMS:
        bare = re.sub(r"\[(?:\\.|[^\]])*\]|\\.", "x", row.pattern)
        assert not re.search(r"[*+]|\{\d+,\}", bare), row.id
        assert all(literal == literal.lower() for literal in row.literals)


def test_a_block_may_hold_lines_of_one_number() -> None:
    block = Block(text="No module named 'triton.ops'\nx", numbers=[7, 7])
    seen = Scanner((symptom(),)).scan([block])
    assert [hit.line for hit in seen.hits["s"]] == [7]
