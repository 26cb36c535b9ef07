"""Does it compute rightly? The self-test, its runner and its verdict."""
