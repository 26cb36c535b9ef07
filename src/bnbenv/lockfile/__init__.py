"""What ought to be installed: standard PEP 751 files."""
