"""Verification: paired trials of treatments, and what may be said after them."""
