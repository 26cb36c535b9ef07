"""What a plain import takes from elsewhere is told, one sentence each."""

from __future__ import annotations

from bnbenv.selftest.imports import differences
from bnbenv.selftest.variables import suspects, without


def test_nothing_to_tell() -> None:
    same = {"torch": "/env/torch/__init__.py"}
    assert differences(same, same, ["/env/libx.so"], ["/env/libx.so"]) == ()


def test_a_shadowed_module_a_foreign_one_and_a_second_library() -> None:
    notes = differences(
        {"torch": "/env/torch/__init__.py"},
        {"torch": "/home/torch.py", "random": "/home/random.py"},
        ["/env/libcudart.so.12"],
        ["/env/libcudart.so.12", "/usr/lib/libcudart.so.12"],
    )
    assert notes == (
        "outside the self-test `random` is also imported, from /home/random.py",
        "outside the self-test `torch` is imported from /home/torch.py, not /env/torch/__init__.py",
        "outside the self-test the native library /usr/lib/libcudart.so.12 is loaded",
    )


def test_only_variables_that_change_what_is_computed_are_suspects() -> None:
    environ = {
        "BNB_CUDA_VERSION": "124",
        "LD_LIBRARY_PATH": "/usr/local/cuda/lib64",
        "CUDA_VISIBLE_DEVICES": "0",
        "PATH": "/bin",
        "HOME": "/home",
    }
    assert suspects(environ) == ("BNB_CUDA_VERSION", "LD_LIBRARY_PATH")
    assert set(without(environ, suspects(environ))) == {"CUDA_VISIBLE_DEVICES", "PATH", "HOME"}
