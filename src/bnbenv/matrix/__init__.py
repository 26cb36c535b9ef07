"""What exists, and what does each artefact hold? The rows of `compat/`, their loader and readers."""
