"""The tests; a package, so that they can share helpers (other installed packages bring a ``tests`` too)."""
