"""On a GPU: new parts live beside their neighbours, and scaled gradients are seen as they are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from treat_models import Elman, chain

from unvanish.schema.treatment import Prescription
from unvanish.treatment.operate import apply

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def of(treatment: str, **parameters: object) -> tuple[Prescription, ...]:
    return (Prescription(treatment=treatment, parameters=parameters),)  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_gated_cell_runs_where_the_plain_one_ran(cell: str) -> None:
    model = Elman(num_layers=2).cuda()
    tokens = torch.randint(11, (4, 5), device="cuda")
    state = torch.cuda.get_rng_state()
    done = apply(model, of("gated_rnn", cell=cell))
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    model(tokens).sum().backward()
    done.undo()
    model(tokens).sum().backward()


@pytest.mark.parametrize("plan", ["batchnorm", "groupnorm", "inputs"])
def test_what_is_put_in_is_on_the_device(plan: str) -> None:
    model, x = chain().cuda(), torch.randn(16, 8, device="cuda")
    apply(model, of(plan), batch=x)
    assert {t.device.type for t in (*model.parameters(), *model.buffers())} == {"cuda"}
    model(x).sum().backward()


@pytest.mark.parametrize("fused", [False, True])
def test_clipping_is_without_the_scale_of_a_grad_scaler(fused: bool) -> None:
    torch.manual_seed(0)
    treated = chain(4, act=nn.Tanh).cuda()
    plain, x = copy.deepcopy(treated), torch.randn(16, 8, device="cuda") * 100
    optimizers: list[Any] = [torch.optim.Adam(treated.parameters(), lr=1e-2, eps=1.0, fused=fused)]
    optimizers.append(torch.optim.Adam(plain.parameters(), lr=1e-2, eps=1.0))
    scaler = torch.amp.GradScaler("cuda", init_scale=1024.0)
    apply(treated, of("clip", norm=0.5), optimizer=optimizers[0])
    for _ in range(3):
        for model, optimizer in zip((treated, plain), optimizers, strict=True):
            optimizer.zero_grad()
            loss = (model(x) * 10).pow(2).mean()
            if model is treated:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            else:
                loss.backward()
                nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
                optimizer.step()
    for p, q in zip(treated.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-5)


def test_loss_scaling_under_autocast_gives_true_gradients() -> None:
    torch.manual_seed(0)
    model = chain(4, act=nn.Tanh).cuda()
    twin, x = copy.deepcopy(model).double(), torch.randn(16, 8, device="cuda")
    apply(model, of("precision", mode="loss_scaling"), optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    with torch.autocast("cuda", dtype=torch.float16):
        out = model(x)
    (out.float() * 1e-4).mean().backward()
    (twin(x.double()) * 1e-4).mean().backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        assert float((p.grad.double() - q.grad).norm()) <= 0.05 * float(q.grad.norm())
