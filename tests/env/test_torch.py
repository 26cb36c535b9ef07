from __future__ import annotations

from pathlib import Path

import pytest

from bnbenv.env.torch import installed_torch

WHERE = Path("/site/torch")


@pytest.mark.parametrize(
    ("text", "full_version", "build"),
    [
        ("__version__ = '2.14.1+cu126'\ncuda: str | None = '12.6'\nhip = None\n", "2.14.1+cu126", "cu126"),
        ("__version__ = '2.9.1+rocm6.4'\ncuda = None\nhip = '6.4.43484-123eb'\n", "2.9.1+rocm6.4", "rocm6.4"),
        ("__version__ = '2.14.1+xpu'\nxpu = '20250302'\n", "2.14.1+xpu", "xpu"),
        ("__version__ = '2.13.0'\ncuda = None\n", "2.13.0", "cpu"),
        ("__version__ = '2.13.0'\ncuda = 'none of yours'\n", "2.13.0", "unknown"),
        ("__version__ = '2.13", "", "cpu"),
    ],
    ids=["cuda", "rocm", "xpu", "processor", "senseless", "damaged"],
)  # fmt: skip
def test_a_torch_is_what_its_file_says(text: str, full_version: str, build: str) -> None:
    torch = installed_torch(text, WHERE)
    assert (torch.full_version, torch.build) == (full_version, build)
    assert torch.directory == WHERE
