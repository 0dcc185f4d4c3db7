"""SERVE: the pages of a folder of runs over HTTP, read-only, while they are written and after.

`runs` reads and keeps what is shown, `guard` says who may ask, `server` answers.
"""
