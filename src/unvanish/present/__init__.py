"""SHOW: one neutral view of a run, lowered to a page (html) and to the terminal (text)."""
