"""What all tests share: one thread, the same examples of hypothesis in CI as here, and the browser."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# before any test imports torch or numpy: the nets are small, and threads make them slower and less repeatable
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# a shell's background job ignores SIGINT, and so would every program that the tests interrupt
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium or Chrome; without one the test skips, and in CI it fails."""
    for name in _BROWSERS:
        if found := shutil.which(name):
            return found
    if _MAC.exists():
        return str(_MAC)
    message = "no Chromium or Chrome here; tools/browser.sh says how to get one"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def scripts(repository: Path) -> Path:
    """The folder of ordinary training scripts, with labels.json beside them."""
    return repository / "tests" / "scripts"
