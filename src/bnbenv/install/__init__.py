"""How packages are fetched and installed: uv, and the indexes it is told to use."""
