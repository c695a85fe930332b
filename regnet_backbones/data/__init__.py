"""Data sets: the embedded one that the package makes by itself."""
