from __future__ import annotations

import pytest

from bnbenv.doctor.prose import is_statement, is_told

SAID = "no module named 'triton.ops'"


def told(line: str) -> bool:
    low = line.lower()
    start = low.index(SAID)
    return is_told(low, start, start + len(SAID))


@pytest.mark.parametrize(
    "line",
    [
        f"We no longer get {SAID}.",
        f"My colleague had {SAID} last year, but that was elsewhere.",
        f"If you see {SAID}, you should upgrade.",
        f"Suppose I rent a V100: will '{SAID}' stop me?",
        f"It logs {SAID}, which is normal there.",
        f"Please explain {SAID} in the docs.",
        f"Fehlermeldung war {SAID}, inzwischen behoben.",
        f"昨天报错 {SAID} 升级之后好了",
        f"- Fix: {SAID}",
        f"### `{SAID}`",
    ],
)
def test_a_failure_that_is_denied_past_meant_or_documented_is_told(line: str) -> None:
    assert told(line)


@pytest.mark.parametrize(
    "line",
    [
        SAID,
        f"It doesn't work for me, I get {SAID}.",
        f"I see {SAID} and I don't know why.",
        f"I see {SAID}, it doesn't matter where I run it.",
        f"I would like to train but I get {SAID}.",
        f"I would be grateful for help: {SAID}",
        f"I fixed the path but now I get {SAID}.",
        f"I took cu121 instead of cu118 and now there is {SAID}.",
        f"I never had this before, but today it says {SAID}.",
        f"Since the update it no longer works: {SAID}",
        f"Es funktioniert nicht mehr: {SAID}",
        f"How do I fix {SAID}? I use Kaggle.",
    ],
)
def test_a_failure_that_follows_a_denial_of_something_else_is_shown(line: str) -> None:
    assert not told(line)


@pytest.mark.parametrize(
    ("before", "line", "quoted"),
    [
        ("if not installed:", f'    raise ImportError("{SAID}")', True),
        ("@@ -1,2 +1,2 @@", f'+       logger.warning("{SAID}")', True),
        ('  File "/e/nn.py", line 7, in <module>', f'    raise ImportError("{SAID}")', False),
        ("     11 │   try:", f'    raise ImportError("{SAID}")', False),
        ("some output", f"ImportError: {SAID}", False),
    ],
)
def test_a_statement_of_a_program_is_no_output_outside_a_traceback(
    before: str, line: str, quoted: bool
) -> None:
    assert is_statement(before, line) is quoted
