"""`config`: show and change the configuration."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from bnbenv.cli.outcome import Outcome
from bnbenv.errors import UsageError
from bnbenv.words import counted

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui
    from bnbenv.install.settings import Setting
    from bnbenv.workflows.config import Config

EPILOG = """\
Examples:
  bnbenv config                                                  what is set, and what can be
  bnbenv config set pytorch-cu126 https://mirror.example/cu126   a mirror of one index
  bnbenv config set pytorch https://mirror.example/torch         one mirror for all of PyTorch's
  bnbenv config set link-mode copy
  bnbenv config unset pytorch
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "action",
        metavar="ACTION",
        nargs="?",
        default="list",
        choices=("list", "get", "set", "unset", "path"),
        help="list (default), get, set, unset or path",
    )
    parser.add_argument("key", metavar="KEY", nargs="?", help="link-mode, keep, or the name of an index")
    parser.add_argument("value", metavar="VALUE", nargs="?", help="what `set` sets it to")


def run(args: Namespace, ui: Ui) -> Outcome:
    """Show or change it."""
    from bnbenv.workflows.config import (
        check_key,
        config_path,
        read_config,
        read_others,
        set_value,
        unset_value,
        write_config,
    )

    _check_count(args)
    if args.action == "path":  # also for a file that cannot be read
        path = str(config_path())
        return Outcome(data=_data_of(path, {}), text=path, document=True)
    config = read_config()
    match args.action:
        case "get":
            flat = _flat(config)
            if args.key not in flat:
                check_key(args.key, _indexes())
            value = flat.get(args.key)
            return Outcome(data=_data(config), text="" if value is None else str(value), document=True)
        case "set":
            changed = set_value(config, args.key, args.value, _indexes())
        case "unset":
            changed = unset_value(config, args.key, _indexes())
        case _:
            return Outcome(data=_data(config), text=_list(config, read_others(), ui))
    write_config(changed)
    ui.progress(f"wrote {changed.path}")
    return Outcome(data=_data(changed))


def _check_count(args: Namespace) -> None:
    given = sum(value is not None for value in (args.key, args.value))
    needed = {"list": 0, "path": 0, "get": 1, "unset": 1, "set": 2}[args.action]
    if given != needed:
        usage = " ".join(["bnbenv config", args.action, *("KEY", "VALUE")[:needed]])
        raise UsageError(
            f"`config {args.action}` takes {counted(needed, 'argument')}, not {given}", hint=usage
        )


def _data(config: Config) -> dict[str, Any]:
    return _data_of(str(config.path), config.to_dict())


def _data_of(path: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {"path": path, "settings": settings}


def _flat(config: Config) -> dict[str, object]:
    return {"link-mode": config.link_mode, "keep": config.keep, **config.mirrors}


def _indexes() -> frozenset[str]:
    """The names and families that may have a mirror: of the default index, pip and uv have the address."""
    from bnbenv.matrix.load import load

    rows = [row for row in load("indexes").indexes if row.url is not None]
    return frozenset({row.name for row in rows} | {row.family for row in rows})


def _list(config: Config, others: tuple[Setting, ...], ui: Ui) -> str:
    from bnbenv.workflows.config import SETTINGS

    indexes = _indexes()
    rows = [
        (key, str(value), "" if key in indexes else f"not used: bnbenv config unset {shlex.quote(key)}")
        for key, value in _flat(config).items()
        if value is not None and key not in SETTINGS
    ]
    values = _flat(config)
    rows += [
        (key, "" if values[key] is None else str(values[key]), description)
        for key, description in SETTINGS.items()
    ]
    foreign = [(it.key, it.shown, it.origin) for it in others]
    return "\n".join(
        [
            ui.table(rows, header=("key", "value", "")),
            "",
            ui.paint(f"{config.path}" + ("" if config.path.exists() else " (not written yet)"), "dim"),
            f"Mirrors can be set for: {', '.join(sorted(indexes))}",
            *(["", ui.table(foreign, header=("of pip and uv", "value", "read from"))] if foreign else []),
        ]
    )
