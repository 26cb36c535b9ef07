from __future__ import annotations

import pytest

from bnbenv import errors


def subclasses(root: type[errors.BnbenvError]) -> list[type[errors.BnbenvError]]:
    here = [child for child in root.__subclasses__() if child.__module__ == root.__module__]
    return [root, *(leaf for child in here for leaf in subclasses(child))]


@pytest.mark.parametrize("kind", subclasses(errors.BnbenvError), ids=lambda kind: kind.__name__)
def test_every_error_has_a_listed_code_and_a_documented_exit_code(kind: type[errors.BnbenvError]) -> None:
    assert kind.default_code in errors.PROBLEM_CODES
    assert kind("words").exit_code in {2, 3, 4, 5, 6, 70, 130}


def test_a_code_outside_the_closed_list_is_refused() -> None:
    with pytest.raises(AssertionError, match="closed list"):
        errors.UsageError("words", code="invented")
