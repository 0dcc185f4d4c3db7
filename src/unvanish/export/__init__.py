"""EXPORT: a run as tidy tables for other tools. `tables` says what is in them, the others write them in a format."""
