from __future__ import annotations

import pytest

from bnbenv.torch_family import differs_by_build, is_torch_family


@pytest.mark.parametrize(
    ("name", "member", "differs"),
    [
        ("torch", True, True),
        ("nvidia-cudnn-cu12", True, True),
        ("triton", True, True),
        ("rocm-sdk-core", True, True),
        ("intel-sycl-rt", True, True),
        ("intel-extension-for-pytorch", False, False),
        ("onemkl-sycl-blas", True, True),
        ("pytorch-triton-xpu", True, True),
        ("torchao", False, True),
        ("bitsandbytes", False, True),
        ("torchmetrics", False, False),
        ("torchdata", False, False),
        ("bitsandbytes-extras", False, False),
        ("numpy", False, False),
        ("mkl", False, False),
        ("nvidia-ml-py", False, False),
    ],
)
def test_who_belongs_to_a_build_of_torch(name: str, member: bool, differs: bool) -> None:
    assert (is_torch_family(name), differs_by_build(name)) == (member, differs)
