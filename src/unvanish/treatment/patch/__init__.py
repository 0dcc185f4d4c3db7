"""A treatment as a change of the user's source: what was seen while the script ran, and the diff made of it."""
