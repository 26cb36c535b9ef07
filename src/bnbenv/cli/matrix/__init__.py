"""How the actions of `matrix` answer, one module for those that belong together."""
