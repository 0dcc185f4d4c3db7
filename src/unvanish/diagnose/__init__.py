"""Judge a recorded run (no torch): sick or not, which kind, which cause, which layers, since when."""
