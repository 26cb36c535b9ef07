from __future__ import annotations

import pytest
from packaging.utils import canonicalize_name

from bnbenv.names import normalized


@pytest.mark.parametrize("name", ["torch", "Flash_Attn", "ruamel.yaml", "a-_.B", "nvidia_cublas__cu12"])
def test_names_are_compared_as_installers_compare_them(name: str) -> None:
    assert normalized(name) == canonicalize_name(name)
