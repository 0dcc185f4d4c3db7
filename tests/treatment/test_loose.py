"""Tensors that no module holds: which of their sides is the input, and what they are drawn as."""

from __future__ import annotations

import pytest
import torch

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment.candidate import of
from unvanish.treatment.loose import draw_loose, loose_candidates, mark_of


def init(**parameters: object) -> tuple[Prescription, ...]:
    return (of("init", **parameters),)  # type: ignore[arg-type]


def size(tensor: torch.Tensor) -> float:
    return float(tensor.var())


@pytest.mark.parametrize("out_first", [False, True])
def test_matrices_are_drawn_by_the_side_that_their_chain_says_is_the_input(out_first: bool) -> None:
    sizes = [(100, 400), (400, 200), (200, 50)]
    tensors = [torch.ones(b, a) if out_first else torch.ones(a, b) for a, b in sizes]
    draw_loose(tensors, init(scheme="lecun", gain=2.0), 0)
    for tensor, (inward, _) in zip(tensors, sizes, strict=True):
        assert inward * size(tensor) == pytest.approx(4.0, rel=0.05)


def test_kernels_have_their_fan_and_one_matrix_the_mean_of_its_sides() -> None:
    kernel, matrix = torch.ones(64, 32, 3, 3), torch.ones(300, 100)
    draw_loose([kernel, matrix], init(scheme="lecun"), 0)
    assert 32 * 9 * size(kernel) == pytest.approx(1.0, rel=0.05)
    assert 200 * size(matrix) == pytest.approx(1.0, rel=0.05)


def test_random_vectors_are_biases_and_constant_ones_are_left() -> None:
    bias, gain, scalar = torch.randn(8), torch.ones(8), torch.tensor(3.0)
    draw_loose([bias, gain, scalar], init(scheme="lecun"), 0)
    assert not bias.any() and torch.equal(gain, torch.ones(8)) and scalar == 3.0


def test_it_draws_the_same_again_keeps_the_random_state_and_what_autograd_knows() -> None:
    one, other = torch.zeros(5, 5, requires_grad=True), torch.zeros(5, 5, requires_grad=True)
    before = torch.random.get_rng_state()
    draw_loose([one], init(scheme="orthogonal"), 3)
    draw_loose([other], init(scheme="orthogonal"), 3)
    assert torch.equal(one, other) and one.is_leaf and one.requires_grad
    assert torch.allclose(one @ one.T, torch.eye(5), atol=1e-5)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("plan", [init(scheme="he"), (of("batchnorm"),), (of("clip", norm=1.0),)])
def test_what_is_for_modules_is_refused_with_the_mend(plan: tuple[Prescription, ...]) -> None:
    with pytest.raises(SurgeryError, match="no module holds") as caught:
        draw_loose([torch.ones(3, 3)], plan, 0)
    assert "nn.Module" in caught.value.mend


def test_the_mark_is_that_of_the_shapes_and_all_candidates_can_be_done() -> None:
    assert mark_of([(3, 4), (4,)]) == mark_of([(4,), (3, 4)]) != mark_of([(3, 4)])
    for one in loose_candidates():
        draw_loose([torch.ones(3, 3)], one.prescriptions, 0)
