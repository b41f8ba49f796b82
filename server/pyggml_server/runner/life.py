"""How a runner ends: with its parent, on a signal, and never without a word."""

import ctypes
import faulthandler
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["die_with_parent", "force_end_after", "go_first", "set_up_last_words"]

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """End this process as soon as the process ``parent`` has ended, however it did.

    Linux only; elsewhere the end of the socket does it, which takes a step of the engine longer.

    Raises:
        SystemExit: it has ended already.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        raise SystemExit(f"the parent {parent} has gone")


def go_first() -> None:
    """When memory is short, the system ends this process rather than the service, which can start another (Linux)."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def set_up_last_words(level: int) -> None:
    """Log to standard error, and write the Python stack there when a signal kills the process."""
    faulthandler.enable()
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    # The terminal's Ctrl-C reaches all processes of its group; the service decides about this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def force_end_after(seconds: int) -> None:
    """Whatever happens: the kernel ends the process after so many seconds, even if a thread hangs in native code."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
