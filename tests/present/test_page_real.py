"""The page of real runs, trained here: a sick net, its cured twin, a transformer, a recurrent net; and for everyone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from browsing import Seen, Window, ink, overflow
from torch import nn

import unvanish
from unvanish import session
from unvanish.present.html import render_html

pytestmark = pytest.mark.browser


def stack(act: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(8):
        layers += [nn.Linear(16, 16), act()]
    model = nn.Sequential(*layers, nn.Linear(16, 3))
    if act is nn.ReLU:
        for module in model:
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)
    return model


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        q = self.first(h)
        h = h + self.attention(q, q, q, need_weights=False)[0]
        out: torch.Tensor = h + self.down(torch.relu(self.up(self.second(h))))
        return out


class Reader(nn.Module):
    """Blocks with skips over a sequence; the mean is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 16)
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.blocks(self.embed(x)).mean(1))
        return out


class Memory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(4, 16, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.rnn(x)[0][:, -1])
        return out


def trained(model: nn.Module, shape: tuple[int, ...], out: Path, steps: int = 60) -> dict[str, Any]:
    """The page's view of a run of so many steps on made-up classes."""
    torch.manual_seed(0)
    x = torch.randn(256, *shape)
    y = (x.reshape(256, -1)[:, :3]).argmax(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with unvanish.watch(model, optimizer, out=out) as watch:
        for _ in range(steps):
            pick = torch.randint(0, 256, (32,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[pick]), y[pick]).backward()
            optimizer.step()
    return session.page_view(session.load(watch.path))


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    out = tmp_path_factory.mktemp("runs")
    torch.manual_seed(1)
    return {
        "sick": trained(stack(nn.Sigmoid), (16,), out / "a"),
        "cured": trained(stack(nn.ReLU), (16,), out / "b"),
        "transformer": trained(Reader(), (6, 4), out / "c"),
        "memory": trained(Memory(), (20, 4), out / "d"),
    }


@pytest.fixture
def show(window: Window, tmp_path: Path, views: dict[str, dict[str, Any]]) -> Any:
    def open_page(name: str, **how: Any) -> Seen:
        file = tmp_path / f"{name}.html"
        file.write_text(render_html(views[name]), "utf-8")
        return window.open(file.as_uri(), **how)

    return open_page


def test_a_sick_net_says_what_is_wrong_where_and_what_helps(show: Any, views: dict[str, Any]) -> None:
    seen = show("sick")
    assert "vanish" in seen.panel("verdict").locator("h1").inner_text()
    assert seen.panel("verdict").get_attribute("data-verdict") == "sick"
    assert "Sigmoid" in seen.panel("chain").inner_text()
    rows = views["sick"]["models"][0]["signal"]["rows"]
    assert int(seen.data("signal")["rows"]) == len(rows) == 9
    gains = seen.panel("signal").locator("tbody tr td:nth-child(6)").all_text_contents()
    assert all(g.startswith("\u2212") for g in gains[:-1]), "every layer loses some"
    links = seen.panel("findings").locator("tbody button.link")
    links.first.click()
    layer = seen.panel("layer")
    assert layer.get_attribute("data-layer") in rows
    assert int(layer.locator("[data-figure='spread']").get_attribute("data-columns")) >= 8
    assert int(layer.locator("[data-figure='sizes']").get_attribute("data-points")) > 5
    passed = float(layer.locator("[data-figure='units']").get_attribute("data-gain"))
    assert 0.15 < passed <= 0.25, "a sigmoid passes a quarter at most"
    assert ink(seen, "canvas.spread") > 5000
    assert seen.complaints == []


def test_the_waterfall_leads_to_any_weight_and_theory_stands_beside(show: Any, views: dict[str, Any]) -> None:
    seen = show("sick")
    chains = views["sick"]["models"][0]["chains"]
    assert len(chains) == 9
    select = seen.panel("chain").locator(".picker select")
    for i, chain in enumerate(chains):
        select.select_option(str(i))
        assert seen.data("chain")["parameter"] == chain["parameter"]
        assert float(seen.data("chain")["total"]) == pytest.approx(chain["total"])
        bars = seen.panel("chain").locator(".fall li[data-kind]")
        assert bars.count() == len(chain["rows"])
        shown = bars.evaluate_all("all => all.map(e => +e.dataset.decades)")
        assert sum(shown) == pytest.approx(chain["total"], abs=0.02)
    select.select_option("0")
    assert seen.panel("chain").locator(".fall .tick").count() == len(chains[0]["rows"])


def test_its_cured_twin_is_healthy_all_over(show: Any) -> None:
    seen = show("cured")
    assert seen.panel("verdict").get_attribute("data-verdict") == "healthy"
    assert "Nothing out of range" in seen.panel("findings").inner_text()
    lowest = seen.panel("signal").locator("tbody tr td:nth-child(3)").all_text_contents()
    assert min(float(t.replace("\u2212", "-")) for t in lowest) > -1.3
    seen.page.locator(".tools select").select_option(index=2)
    assert "dead" in seen.panel("layer").locator("[data-figure='units']").inner_text().lower()
    assert seen.complaints == []


def test_a_transformer_shows_its_skips_in_the_river_and_its_blocks_fold(
    show: Any, views: dict[str, Any]
) -> None:
    seen = show("transformer")
    river = views["transformer"]["models"][0]["river"]
    arcs = seen.panel("river").locator("path.arc").count()
    assert arcs >= 4, "two skips in each of two blocks"
    assert sum(n["kind"] == "sum" for n in river["nodes"]) == 4
    before = int(seen.page.locator("canvas.map").get_attribute("data-lines"))
    seen.page.get_by_text("Fold modules").click()
    assert int(seen.page.locator("canvas.map").get_attribute("data-lines")) < before
    forks = seen.panel("chain").locator("[data-fork]")
    assert forks.count() >= 2
    assert "sum at" in forks.first.inner_text() or "attention" in forks.first.inner_text()
    assert seen.complaints == []


def test_a_recurrent_net_shows_the_way_back_through_time(show: Any) -> None:
    seen = show("memory")
    seen.page.wait_for_selector("[data-chart='time'][data-drawn]")
    assert "20 time steps" in seen.panel("chain").inner_text()
    assert "of it on" in seen.panel("chain").inner_text()
    assert ink(seen, "[data-chart='time'] canvas") > 300
    assert seen.complaints == []


@pytest.mark.parametrize("name", ["sick", "cured", "transformer", "memory"])
def test_no_page_is_wider_than_a_phone(show: Any, name: str) -> None:
    assert overflow(show(name, width=390)) <= 0
