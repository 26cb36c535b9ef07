"""Finds a model by its id: in the hub's cache on this machine, else its configuration at the hub itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.errors import ExternalError, UsageError
from bnbenv.home import expanded
from bnbenv.memory.checkpoint import CONFIG, Checkpoint, read_checkpoint
from bnbenv.memory.strict import json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?:/[\w.-]{1,96})?")
_TIMEOUT = (5, 15)  # seconds to connect, and between two pieces
_LONGEST = 4_000_000
_ENDPOINT = "https://huggingface.co"  # where `HF_ENDPOINT` does not name another


def looks_like_id(text: str) -> bool:
    """Whether a text that names no file may be a model's id."""
    return _ID.fullmatch(text) is not None and ".." not in text and "--" not in text


def find(model: str, environ: Mapping[str, str], *, offline: bool) -> Checkpoint:
    """The newest snapshot in the cache, else the configuration alone, from the hub.

    Raises:
        UsageError: code ``bad-model``; there is no such model, or it wants a licence to be accepted.
        ExternalError: the hub does not answer, or may not be asked.
    """
    cached = _cached(model, environ)
    if cached is not None:
        return read_checkpoint(cached)
    if offline or environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        raise ExternalError(
            f"`{model}` is not in the cache of the hub, and the network may not be used",
            hint="name a directory with a config.json, or leave --offline and HF_HUB_OFFLINE out",
            code="offline",
        )
    return Checkpoint(directory=None, config=_fetch(model, environ))


def _cached(model: str, environ: Mapping[str, str]) -> Path | None:
    above = environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    home = expanded(environ.get("HF_HUB_CACHE") or str(Path(above, "hub")), "the hub's cache")
    snapshots = home / ("models--" + model.replace("/", "--")) / "snapshots"
    try:
        found = [path for path in snapshots.iterdir() if (path / CONFIG).is_file()]
        return max(found, key=lambda path: path.stat().st_mtime, default=None)
    except OSError:
        return None


def _fetch(model: str, environ: Mapping[str, str]) -> Mapping[str, object]:
    import requests
    from urllib3.exceptions import HTTPError  # `raw` tells of a cut or damaged body in its own words

    endpoint = (environ.get("HF_ENDPOINT") or _ENDPOINT).rstrip("/")
    token = environ.get("HF_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with requests.get(
            f"{endpoint}/{model}/resolve/main/{CONFIG}", headers=headers, timeout=_TIMEOUT, stream=True
        ) as answer:
            if answer.status_code in {401, 403}:
                raise UsageError(
                    f"the hub does not give `{model}` to everybody: it is gated, private, or does not exist",
                    hint="accept its licence on its page, set HF_TOKEN, and type the command again",
                    code="bad-model",
                )
            if answer.status_code == 404:
                raise UsageError(
                    f"the hub has no model `{model}` with a {CONFIG}",
                    hint="look at the spelling, or name a directory",
                    code="bad-model",
                )
            answer.raise_for_status()
            text = answer.raw.read(_LONGEST + 1, decode_content=True)
    except (requests.RequestException, HTTPError) as error:
        raise ExternalError(
            f"the hub at {endpoint} does not answer: {type(error).__name__}",
            hint="name a directory with a config.json; HF_ENDPOINT names a mirror",
            code="index-unreachable",
        ) from error
    try:
        if len(text) > _LONGEST:
            raise ValueError("it is longer than any real one")  # noqa: TRY301 - told as the others are
        return json_object(text)
    except ValueError as error:
        raise UsageError(
            f"what the hub sends as {CONFIG} of `{model}` is none: {error}",
            hint="name a directory",
            code="bad-model",
        ) from error
