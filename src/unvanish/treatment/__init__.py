"""Treatments: what can be changed in a model, and the surgery that does it and takes it back (torch)."""
