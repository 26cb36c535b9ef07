"""Hands Sources to uv: a generated `uv.toml` without secrets, and variables for what is secret."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bnbenv.errors import ExternalError
from bnbenv.install.redact import join_credential, split_credential

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from bnbenv.install.sources import Index, Sources


# The client library's constant for the default index, in its source.
_ENDPOINT = re.compile(r"""^PYPI_SIMPLE_ENDPOINT\b[^=\n]*=\s*["']([^"'\n]+)["']""", re.MULTILINE)


def address(index: Index) -> str:
    """The address of an index without its credential."""
    return default_address() if index.url is None else index.url


@cache
def default_address() -> str:
    """The address of the index that uv and pip know by themselves, as the client library names it.

    It is read from the library's source: to import it takes a quarter of a second. Spelt as uv does: its
    cache knows an index by its address, and a slash more is another index.
    """
    spec = find_spec("pypi_simple")
    if spec is not None and spec.origin is not None:
        with suppress(OSError, UnicodeDecodeError):
            if found := _ENDPOINT.search(Path(spec.origin).read_text(encoding="utf-8")):
                return found[1].rstrip("/")
    from pypi_simple import PYPI_SIMPLE_ENDPOINT

    return str(PYPI_SIMPLE_ENDPOINT).rstrip("/")


def uv_table(sources: Sources) -> dict[str, Any]:
    """The contents of a `uv.toml` that replaces every other configuration of uv."""
    table: dict[str, Any] = {
        **sources.passed,
        "index-strategy": sources.strategy,
        "python-downloads": "never",
    }
    if sources.keyring:
        table["keyring-provider"] = sources.keyring
    if sources.trusted_hosts:
        table["allow-insecure-host"] = list(sources.trusted_hosts)
    flats = [index.url for index in sources.with_role("flat") if index.url]
    if sources.no_index:
        # uv's own `no-index` would also shut off the wheelhouse to which torch is pinned.
        return {**table, **(_alone(flats) if flats else {"no-index": True})}
    if flats:
        table["find-links"] = flats
    general = [*sources.with_role("extra"), *sources.with_role("default")]
    entries: list[dict[str, Any]] = []
    for index in general:
        if index.url is None and index is general[-1]:
            continue  # uv's own default needs no entry
        entries.append({"name": index.name, "url": address(index)})
    if entries and general[-1].name == entries[-1]["name"]:
        # uv asks its default last, and adds its own unless one is marked.
        entries[-1]["default"] = True
    if entries:
        table["index"] = entries
    return table


def _alone(flats: Sequence[str]) -> dict[str, Any]:
    """Wheelhouses as all the indexes that there are: one stands in the place of uv's default."""
    entries: list[dict[str, Any]] = [
        {"name": f"no-index-{number}", "url": url, "format": "flat"} for number, url in enumerate(flats, 1)
    ]
    entries[-1]["default"] = True
    return {"index": entries}


def pinned_table(index: Index) -> dict[str, Any]:
    """The entry of a project's `[[tool.uv.index]]` from which only what is pinned to it comes."""
    entry: dict[str, Any] = {"name": index.name, "url": address(index), "explicit": True}
    if index.flat:
        entry["format"] = "flat"
    return entry


def uv_variables(sources: Sources, environ: Mapping[str, str]) -> dict[str, str]:
    """Credentials, proxy and certificates, as uv reads them from its environment."""
    variables: dict[str, str] = {}
    for index in sources.indexes:
        if index.credential is not None:
            username, password = credential_variables(index)
            # A variable that the user set for this name is meant for it.
            variables[username] = environ.get(username, index.credential.username)
            variables[password] = environ.get(password, index.credential.password)
    if sources.proxy:
        proxy = sources.proxy if "://" in sources.proxy else f"http://{sources.proxy}"
        bare, credential = split_credential(proxy)
        value = join_credential(bare, credential) if credential else bare
        variables.update({"HTTP_PROXY": value, "HTTPS_PROXY": value, "ALL_PROXY": value})
    if not {"SSL_CERT_FILE", "SSL_CERT_DIR"} & environ.keys() and (found := certificates(sources, environ)):
        # uv takes neither for the other, and trusts nobody where the one that it is given is not there.
        path = Path(found[1])
        if path.exists():
            variables["SSL_CERT_DIR" if path.is_dir() else "SSL_CERT_FILE"] = found[1]
    if sources.client_cert and "SSL_CLIENT_CERT" not in environ:
        variables["SSL_CLIENT_CERT"] = str(sources.client_cert)
    return variables


def certificates(sources: Sources, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """What names the certificates of this site, and where they are; pip reads variables that uv does not."""
    if file := environ.get("SSL_CERT_FILE"):
        return "SSL_CERT_FILE", file
    if sources.cert:
        return "cert", str(sources.cert)
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if file := environ.get(variable):
            return variable, file
    return None


def credential_variables(index: Index) -> tuple[str, str]:
    """The variables in which uv looks for the user name and the password of an index."""
    stem = "UV_INDEX_" + re.sub(r"[^A-Z0-9]", "_", index.name.upper())
    return f"{stem}_USERNAME", f"{stem}_PASSWORD"


@contextmanager
def uv_workspace(sources: Sources) -> Iterator[Path]:
    """A private directory that holds ``uv.toml``, removed at the end.

    Raises:
        ExternalError: there is no place for temporary files.
    """
    import tomli_w

    try:
        directory = TemporaryDirectory(prefix="bnbenv-", ignore_cleanup_errors=True)
    except OSError as problem:
        raise ExternalError(
            f"no temporary directory can be made: {problem}",
            code="permission",
            hint="point `TMPDIR` at a writable directory",
        ) from problem
    with directory as name:
        path = Path(name)
        write_private(path / "uv.toml", tomli_w.dumps(uv_table(sources)))
        yield path


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone can read."""
    import os

    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
