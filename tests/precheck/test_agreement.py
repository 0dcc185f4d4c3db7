"""Predicted and measured gain agree within the band of one net: the fast part of benchmarks/agreement.py."""

from __future__ import annotations

from agreement import ARCHITECTURES, BAR, INITS, cases, compare


def test_twelve_architectures_under_three_initialisations() -> None:
    assert len(ARCHITECTURES) == 12 and len(INITS) == 3
    within = predicted = 0
    silent = set()
    for architecture, _, _, gains in cases(range(1)):
        a, b, _ = compare(gains)
        within, predicted = within + a, predicted + b
        if not b:
            silent.add(architecture.name)
            assert all(g.why for g in gains if g.predicted is None)
    assert predicted > 250
    assert within / predicted >= BAR
    assert silent == {"transformer, 2 blocks", "recurrence, 8 time steps"}
