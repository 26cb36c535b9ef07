"""The options that add packages to a profile's, and what is refused of them before anything starts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.errors import UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser


def add_additions(parser: ArgumentParser) -> None:
    """``--with``, ``--requirements`` and ``--exclude-newer``."""
    what = parser.add_argument_group("what to add")
    what.add_argument(
        "--with",
        dest="packages",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a further requirement; repeat for several",
    )
    what.add_argument(
        "--requirements",
        action="append",
        default=[],
        metavar="FILE",
        help="a requirements file; repeat for several",
    )
    what.add_argument(
        "--exclude-newer",
        metavar="DATE",
        help="ignore what was uploaded after this date, such as 2026-01-31",
    )


def check_packages(packages: list[str], word: str = "--with") -> None:
    """Refuse what is no requirement before anything starts; paths and addresses are for uv to judge."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in packages:
        if text.strip() and any(mark in text.partition(";")[0] for mark in "/\\"):
            continue
        try:
            Requirement(text)
        except InvalidRequirement as error:
            raise UsageError(
                f"`{word} {text}` is no requirement: {str(error).partition(chr(10))[0]}",
                hint=f"such as `{word} einops` or `{word} 'einops>=0.8'`",
                code="bad-request",
            ) from error


def check_date(text: str | None) -> None:
    """Refuse what cannot be a date, a time or a duration; which of them it is, uv says."""
    if text is not None and not re.match(r"\s*[+-]?[Pp]?\s*\d", text):
        raise UsageError(
            f"`--exclude-newer {text}` is no date",
            hint="such as `--exclude-newer 2026-01-31`",
            code="bad-request",
        )
