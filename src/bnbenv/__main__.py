"""``python -m bnbenv`` is ``bnbenv``."""

from bnbenv.cli.main import entry

entry()
