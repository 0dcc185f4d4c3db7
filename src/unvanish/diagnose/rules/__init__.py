"""One rule per file; the registry is in diagnose/engine.py."""
