"""The pytest plugin: a fixture and a marker. Loaded in every pytest run, so it imports neither torch nor numpy.

def test_my_net_is_trainable(gradients_flow):
    gradients_flow(build_net(), (inputs, targets), loss_fn)

@pytest.mark.gradients_flow(seed=1, least=1e-3)     # options of all calls in this test
def test_my_deep_net_is_trainable(gradients_flow): ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

MARKER = "gradients_flow"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(least=, most=, seed=): options of the gradients_flow fixture in this test (unvanish)",
    )


@pytest.fixture
def gradients_flow(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """unvanish.testing.assert_gradients_flow, with the options of the test's marker."""
    from unvanish.testing import assert_gradients_flow  # noqa: PLC0415 - only in tests that ask for it

    marker = request.node.get_closest_marker(MARKER)
    options = dict(marker.kwargs) if marker is not None else {}

    def check(model: Any, batch: Any, loss_fn: Any = None, **own: Any) -> Any:
        __tracebackhide__ = True
        return assert_gradients_flow(model, batch, loss_fn, **{**options, **own})

    return check
