from __future__ import annotations

from pathlib import Path

import pytest

from bnbenv.install.network_disk import network_places

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:50 / /home rw,relatime shared:2 - nfs4 server:/home rw
41 22 0:51 / /scratch\\040disk rw,relatime shared:3 - lustre server:/x rw
42 22 254:1 / /home/local rw,relatime shared:4 - xfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/you/.cache/uv", "nfs4"),
        ("/scratch disk/uv", "lustre"),
        ("/home/local/uv", None),
        ("/var/uv", None),
        ("/homes/uv", None),
    ],
)
def test_network_file_systems_are_noticed(path: str, kind: str | None) -> None:
    told = network_places({"UV_CACHE_DIR": Path(path)}, read=lambda: MOUNTS)
    assert [f"({kind})" in line and "UV_CACHE_DIR" in line for line in told] == ([True] if kind else [])


def test_where_mounts_cannot_be_read_nothing_is_claimed() -> None:
    def fails() -> str:
        raise OSError

    assert network_places({"UV_CACHE_DIR": Path("/")}, read=fails) == ()
