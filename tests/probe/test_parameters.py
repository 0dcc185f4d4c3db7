"""The always-on tier: what is kept of parameters, gradients and updates, against an obvious twin."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from unvanish.probe import parameters as parameters_module
from unvanish.probe.exact import ExactRing
from unvanish.probe.parameters import MOST_SLOTS, ParameterRing, quantiles
from unvanish.schema.run import PARAMETER_STATISTICS, SNAPSHOT_QUANTILES


@pytest.fixture(scope="module", autouse=True, params=[(), ("cpu",)], ids=["one by one", "joined"])
def joined(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways of copying: what is one launch on a GPU must do the same here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parameters_module, "JOINED_ON", request.param)
        yield


DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]


def step(
    ring: ParameterRing, change: Callable[[], Any], *, surely: bool = False, optimizer: Any = None
) -> Any:
    """One step under the ring's eyes; gives the statistics as {name: [by parameter]}."""
    slot = ring.take_slot()
    assert slot is not None
    with torch.no_grad():
        look = ring.look_before(slot, surely=surely)
        ring.look_gradients(look, None, sparse=True)
        change()
        ring.look_after(look, optimizer)
    table, _ = ring.reduce([look])
    return {name: table[0, i].tolist() for i, name in enumerate(PARAMETER_STATISTICS)}


def halve(parameters: Sequence[Tensor]) -> Callable[[], None]:
    def change() -> None:
        for p in parameters:
            p.mul_(0.5)

    return change


@given(
    st.lists(st.lists(st.integers(1, 6), max_size=3), min_size=1, max_size=6),
    st.sampled_from(DTYPES),
    st.integers(0, 2**20),
)
def test_parameters_against_a_twin(sides: list[list[int]], dtype: torch.dtype, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.randn(side, generator=rng).to(dtype)) for side in sides]
    for i, p in enumerate(parameters):
        if i % 3 != 2:
            p.grad = torch.randn(p.shape, generator=rng).to(dtype)
            if i % 3 == 1:
                p.grad[p.grad.real < 0] = 0
    old = [p.detach().clone() for p in parameters]
    found = step(ParameterRing(parameters), halve(parameters))
    wide = torch.complex128 if dtype.is_complex else torch.float64
    for i, (p, before) in enumerate(zip(parameters, old, strict=True)):
        b, a = before.to(wide), p.detach().to(wide)
        if p.grad is None:
            assert all(math.isnan(found[name][i]) for name in PARAMETER_STATISTICS if "gradient" in name)
        else:
            g = p.grad.to(wide)
            assert found["gradient_rms"][i] == pytest.approx(float(g.abs().square().mean().sqrt()), abs=1e-12)
            assert found["gradient_absmax"][i] == pytest.approx(float(g.abs().max()))
            assert found["gradient_zeros"][i] == pytest.approx(float((g == 0).double().mean()), abs=1e-9)
            assert found["gradient_nonfinite"][i] == 0
            descent = float(-(g.conj() * (a - b)).sum().real)
            assert found["first_order"][i] == pytest.approx(descent, rel=1e-9, abs=1e-9)
        assert found["weight_rms"][i] == pytest.approx(float(b.abs().square().mean().sqrt()), abs=1e-12)
        assert found["update_rms"][i] == pytest.approx(float((a - b).abs().square().mean().sqrt()), abs=1e-12)
        assert found["update_changed"][i] == pytest.approx(float((a != b).double().mean()), abs=1e-9)


def test_a_large_tensor_is_sampled_and_its_sums_scaled_up() -> None:
    torch.manual_seed(0)
    for make in (
        lambda: torch.randn(300, 200),
        lambda: torch.randn(200, 300).t(),
        lambda: torch.randn(40, 30, 5, 5).to(memory_format=torch.channels_last),
    ):
        p = nn.Parameter(make())
        p.grad = torch.randn(p.shape)  # laid out plainly, whatever the parameter's own layout
        before = p.detach().clone()
        change = p.grad * 0.1

        def descend(p: Tensor = p, change: Tensor = change) -> None:
            p.sub_(change)

        ring = ParameterRing([p])
        found = step(ring, descend)
        assert 200 <= ring.counts[0] <= 256
        assert found["gradient_rms"][0] == pytest.approx(float(p.grad.square().mean().sqrt()), rel=0.15)
        assert found["weight_rms"][0] == pytest.approx(float(before.square().mean().sqrt()), rel=0.15)
        # the same elements of weight and gradient are looked at: the update is a tenth of the gradient, element by element
        assert found["update_rms"][0] == pytest.approx(0.1 * found["gradient_rms"][0], rel=1e-4)
        expected = 0.1 * found["gradient_rms"][0] ** 2 * p.numel()
        assert found["first_order"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_no_overflow_and_no_underflow(scale: float) -> None:
    p = nn.Parameter(torch.full((50,), scale))
    p.grad = torch.full((50,), scale)
    found = step(ParameterRing([p]), halve([p]))
    assert found["gradient_rms"][0] == pytest.approx(scale, rel=1e-6)
    assert found["update_rms"][0] == pytest.approx(scale / 2, rel=1e-6)


def test_what_cannot_be_read_is_not_a_number() -> None:
    parameters = [nn.Parameter(torch.empty(2, 2, device="meta")), nn.Parameter(torch.ones(4))]
    parameters[1].grad = torch.full((4,), math.nan)
    found = step(ParameterRing(parameters), lambda: None)
    assert all(math.isnan(values[0]) for values in found.values())
    assert found["gradient_nonfinite"][1] == 1.0
    nothing = ParameterRing(parameters[:1])
    assert nothing.take_slot() is None


def test_a_sparse_gradient_is_summed_where_an_entry_comes_twice() -> None:
    p = nn.Parameter(torch.ones(6, 2))
    p.grad = torch.sparse_coo_tensor(
        torch.tensor([[1, 1, 4]]), torch.tensor([[1.0, 2], [3, -2], [5, 6]]), (6, 2), check_invariants=False
    )
    found = step(ParameterRing([p]), halve([p]))
    dense = p.grad.to_dense()
    assert found["gradient_rms"][0] == pytest.approx(float(dense.square().mean().sqrt()))
    assert found["gradient_absmax"][0] == 6
    assert found["gradient_zeros"][0] == pytest.approx(float((dense == 0).double().mean()))


def test_a_parameter_that_gets_new_storage_is_followed() -> None:
    parameter = nn.Parameter(torch.ones(4))
    ring = ParameterRing([parameter])
    for value in (1.0, 5.0):
        parameter.data = torch.full((4,), value)
        parameter.grad = torch.ones(4)
        assert step(ring, lambda: None)["weight_rms"][0] == value


def test_weights_that_the_script_changes_between_steps_are_not_taken_for_updates() -> None:
    parameter = nn.Parameter(torch.full((4,), 8.0))
    parameter.grad = torch.ones(4)
    ring = ParameterRing([parameter])
    for number in range(6):
        found = step(ring, halve([parameter]), surely=number < 2)  # surely: the engine's first steps
        assert found["update_rms"][0] == 4.0
        with torch.no_grad():
            if number % 2:
                parameter.mul_(2)  # leaves a version behind
            else:
                parameter.data.mul_(2)  # leaves none; seen where the weights before are looked at anyway


def test_two_optimizers_look_at_their_own_rows_in_one_slot() -> None:
    ours, other = nn.Parameter(torch.full((3,), 4.0)), nn.Parameter(torch.full((3,), 4.0))
    ring = ParameterRing([ours, other])
    slot = ring.take_slot()
    assert slot is not None
    with torch.no_grad():
        look = ring.look_before(slot, surely=True)
        ours.grad, other.grad = torch.ones(3), torch.full((3,), 9.0)
        ring.look_gradients(look, None, sparse=True, rows=frozenset((0,)))
        ours.mul_(0.5)
        ring.look_after(look)
        ours.grad, other.grad = (
            torch.full((3,), 7.0),
            torch.full((3,), 2.0),
        )  # another backward pass in between
        ring.look_gradients(look, None, sparse=True, rows=frozenset((1,)))
        other.sub_(1.0)
        ring.look_after(look)
    table, _ = ring.reduce([look])
    assert table[0, 0].tolist() == [1.0, 2.0]
    assert table[0, 5].tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float64, 1e-9)]
)
def test_adam_suppression(dtype: torch.dtype, error: float) -> None:
    p = nn.Parameter(torch.ones(3, dtype=dtype))
    optimizer = torch.optim.Adam([p], lr=0.1, eps=1e-2)
    ring = ParameterRing([p])
    p.grad = torch.tensor([1e-2, 1e-2, 1e-2], dtype=dtype)
    found = step(ring, optimizer.step, optimizer=optimizer)
    assert found["adam_suppression"][0] == pytest.approx(0.5, rel=error)  # after one step sqrt(v^) is |g|
    assert found["update_rms"][0] == pytest.approx(0.05, rel=0.1 if error > 1e-3 else 1e-5)


def test_slots_come_back_and_none_is_an_answer() -> None:
    p = nn.Parameter(torch.ones(3))
    ring = ParameterRing([p])
    taken = []
    while (slot := ring.take_slot()) is not None:
        taken.append(ring.look_before(slot))
    assert 2 <= len(taken) <= MOST_SLOTS
    ring.reduce(taken)
    assert ring.take_slot() is not None


def test_quantiles_against_a_twin() -> None:
    rows = np.zeros((3, 8))
    rows[0] = np.random.default_rng(0).normal(size=8)
    rows[1, :3] = [3.0, 1.0, 2.0]
    found = quantiles(rows, [8, 3, 0], [800, 3, 0])
    assert found[0][0] == pytest.approx(float(np.linalg.norm(rows[0])) * 10)
    assert found[1][1] == pytest.approx(tuple(1 + 2 * q for q in SNAPSHOT_QUANTILES))
    assert all(math.isnan(v) for v in found[2][1])


def test_broken_weights_warn_nobody(recwarn: pytest.WarningsRecorder) -> None:
    found = quantiles(np.array([[math.nan, 1.0, 2.0], [math.inf, -math.inf, 0.0]]), [3, 3], [3, 3])
    assert math.isnan(found[0][1][3])
    assert not recwarn.list


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_quantiles_are_numpys(values: list[float]) -> None:
    ((_, levels),) = quantiles(np.array([values]), [len(values)], [len(values)])
    assert levels == pytest.approx(np.quantile(values, SNAPSHOT_QUANTILES).tolist(), rel=1e-9, abs=1e-6)


def test_exact_looks_at_every_element() -> None:
    torch.manual_seed(0)
    large, small = nn.Parameter(torch.randn(300, 200)), nn.Parameter(torch.randn(5, dtype=torch.float64))
    bare = nn.Parameter(torch.ones(4))
    large.grad, small.grad = torch.randn(300, 200), torch.randn(5, dtype=torch.float64)
    large.grad[7, 7] = 0.0
    before = large.detach().clone()
    ring = ExactRing([large, small, bare])
    found = step(ring, halve([large, small]))
    assert ring.looked_at == [60_000, 5, 4]
    g, update = large.grad.double(), large.detach().double() - before.double()
    assert found["gradient_rms"][0] == pytest.approx(float(g.square().mean().sqrt()), rel=1e-12)
    assert found["gradient_absmax"][0] == pytest.approx(float(g.abs().max()), rel=1e-12)
    assert found["gradient_zeros"][0] == pytest.approx(1 / 60_000)
    assert found["update_rms"][0] == pytest.approx(float(update.square().mean().sqrt()), rel=1e-12)
    assert found["first_order"][0] == pytest.approx(float(-(g * update).sum()), rel=1e-9)
    assert math.isnan(found["gradient_rms"][2]) and found["weight_rms"][2] == 1.0


@given(
    st.lists(st.lists(st.integers(1, 6), max_size=3), min_size=1, max_size=4),
    st.sampled_from(DTYPES),
    st.integers(0, 2**20),
)
def test_small_tensors_are_exact_either_way(sides: list[list[int]], dtype: torch.dtype, seed: int) -> None:
    """The exact ring is the slow, obvious twin of the fast one."""
    both = []
    for make in (ParameterRing, ExactRing):
        rng = torch.Generator().manual_seed(seed)
        parameters = [nn.Parameter(torch.randn(side, generator=rng).to(dtype)) for side in sides]
        for p in parameters[::2]:
            p.grad = torch.randn(p.shape, generator=rng).to(dtype)
        both.append(step(make(parameters), halve(parameters)))
    for name in PARAMETER_STATISTICS:
        assert both[0][name] == pytest.approx(both[1][name], rel=1e-9, abs=1e-12, nan_ok=True)
