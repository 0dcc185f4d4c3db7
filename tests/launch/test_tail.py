"""Output that is not shown: its end is kept, whatever its length."""

from __future__ import annotations

import sys

import pytest

from unvanish.launch.tail import quiet


def test_the_last_line_is_kept_and_no_more_than_a_few_kilobytes() -> None:
    with quiet() as tail:
        for k in range(20_000):
            print("line", k)
        print("the last words", file=sys.stderr)
        print()
    assert tail.last_line == "the last words"
    assert len(tail._end.kept) <= 4096


def test_bytes_may_be_written_below_it() -> None:
    with quiet() as tail:
        sys.stdout.write("text, ")
        sys.stdout.buffer.write("bytes \xe4\n".encode())
        sys.stdout.flush()
    assert tail.last_line == "text, bytes \xe4"


def test_what_a_terminal_would_be_asked_for() -> None:
    with quiet():
        assert not sys.stdout.isatty() and sys.stdout.encoding == "utf-8"
        with pytest.raises(OSError, match="fileno"):
            sys.stderr.fileno()
        sys.stdout.close()
