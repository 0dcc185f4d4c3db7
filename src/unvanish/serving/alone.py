"""The first thing that the process beside a training does, before it imports anything heavy: be in nobody's way."""

from __future__ import annotations

import contextlib
import os
import signal

NICE = 10


def leave_the_family() -> None:
    """Be nobody's child: not waited for, no Ctrl-C, the last to get the processor.

    A script that waits for any of its children (os.wait) must not come upon this process.
    """
    with contextlib.suppress(OSError, AttributeError):
        if os.fork():
            os._exit(0)
        os.setsid()
    for name in ("SIGINT", "SIGHUP", "SIGTTOU", "SIGPIPE"):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        os.nice(NICE)
