"""A layer's name that a spreadsheet would run."""

FORMULA = "=cmd|' /C calc'!A0"
