"""What `create` and `sync` tell of an environment that they have built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnbenv.cli.outcome import Problem
from bnbenv.cli.spelling import spelt

if TYPE_CHECKING:
    from bnbenv.cli.ui import Ui
    from bnbenv.env.generation import Generation
    from bnbenv.env.layout import Place
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.selftest.verdict import Verdict
    from bnbenv.workflows.choose import Choice


def chosen(choice: Choice) -> dict[str, Any]:
    """What was chosen and why, in the words that `resolve` uses too."""
    from bnbenv.judge.document import finding_document
    from bnbenv.machine.document import target_to_dict

    stack, judgement = choice.solution.stack, choice.solution.judgement
    return {
        "profile": stack.profile,
        "python": stack.python,
        "torch": {"version": stack.torch.version, "build": stack.torch.build, "index": stack.torch.index},
        "bitsandbytes": {"version": stack.bitsandbytes.version, "library": judgement.library}
        if stack.bitsandbytes
        else None,
        "target": target_to_dict(choice.target),
        "findings": [finding_document(finding) for finding in judgement.findings],
        "given_up": list(choice.given_up),
        "matrix": choice.matrix.revision,
    }


def notices(choice: Choice) -> tuple[Problem, ...]:
    """The judge's warnings, and that a build for a GPU will compute on the processor.

    What was given up has been told as it was decided, and stands in the data.
    """
    return tuple(
        Problem(
            code="notice",
            message=finding.summary,
            hint=finding.remedy.commands[0] if finding.remedy and finding.remedy.commands else None,
        )
        for finding in choice.solution.judgement.findings
        if finding.severity == "warning" or finding.code == "no-gpu-visible"
    )


def wrong(place: Place, generation: Generation | None, *, hint: str) -> Problem:
    """That the self-test failed, and what stands there now."""
    from bnbenv.cli.verdicts import after_failure

    return Problem(
        code="self-test-failed",
        message=f"`{place.name}` does not compute rightly; {after_failure(place, generation)}",
        hint=hint,
    )


def next_steps(name: str, profile: str, choice: Choice) -> list[str]:
    """What to type next."""
    import shlex

    from bnbenv.cli.program import program
    from bnbenv.workflows.example import TEMPLATES

    word, bnbenv = shlex.quote(name), program()
    if profile not in TEMPLATES:
        return [f"{bnbenv} run {word} -- python"]
    if choice.elsewhere:
        return [f"{bnbenv} verify {word}", f"{bnbenv} run {word} -- python -m bitsandbytes"]
    return [f"{bnbenv} example {profile} -o train.py", f"{bnbenv} run {word} -- python train.py"]


def rows(choice: Choice, lock: Pylock, place: Place) -> list[tuple[str, str]]:
    """What it is made of and where it stands, as rows of a table."""
    stack = choice.solution.stack
    return [
        ("python", stack.python),
        ("torch", f"{stack.torch.version} ({stack.torch.build}) from {stack.torch.index}"),
        *([("bitsandbytes", stack.bitsandbytes.version)] if stack.bitsandbytes else []),
        ("packages", str(len(lock.packages))),
        ("where", str(place.link)),
    ]


def told(verdict: Verdict, ui: Ui, *, elsewhere: bool = False) -> list[str]:
    """The verdict; what is wrong where it failed, and which faults of upstream were met.

    Args:
        verdict: of the self-test.
        ui: where it will be shown.
        elsewhere: the environment is for another machine.
    """
    from bnbenv.cli.verdicts import details, faults, headline

    return [
        f"self-test     {headline(verdict, ui)}",
        *(details(verdict, ui) if verdict.verdict == "failed" else faults(verdict, ui)),
        *(["  this machine is not the one it is for: nothing was computed"] if elsewhere else []),
    ]


def next_lines(steps: list[str], *, elsewhere: bool) -> list[str]:
    """What to type next, and whether there, on the machine that it is for."""
    where = " there" if elsewhere else ""
    return ["", f"Next{where}:", *(f"  {spelt(step)}" for step in steps)] if steps else []
