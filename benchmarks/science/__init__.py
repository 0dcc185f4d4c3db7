"""Published predictions beside real nets: run.py measures them and writes docs/science.md."""
