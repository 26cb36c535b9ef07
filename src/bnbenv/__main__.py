"""``python -m bnbenv`` is ``bnbenv``."""

from bnbenv.cli.main import main

raise SystemExit(main())
