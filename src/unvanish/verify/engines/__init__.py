"""Engines: where trials run, one file each."""
