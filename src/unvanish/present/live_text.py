"""A run that trains, in a few lines of a terminal: how far it is, its loss, the verdict so far, its signal map."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from unvanish.present import words
from unvanish.present.blocks import map_lines, sparkline
from unvanish.present.text import visible

_STYLES = {
    "sick": "bold red",
    "not_learning": "bold yellow",
    "inconclusive": "bold blue",
    "healthy": "bold green",
}
_BAR = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveModel:
    """What is drawn of a model: the parts of its view that fit on a terminal."""

    name: str
    verdict: str
    headline: dict[str, str]
    steps: int
    seconds: float | None  # since the start of the run, at its last step
    losses: list[float | None]
    loss: float | None
    signal: dict[str, Any]


def live_models(view: dict[str, Any], seconds: dict[str, float]) -> tuple[LiveModel, ...]:
    """Out of a view. `seconds`: of each model's last step, by its name."""
    return tuple(
        LiveModel(
            name=m["name"],
            verdict=m["verdict"],
            headline=m["headline"],
            steps=m["loss"]["recorded"],
            seconds=seconds.get(m["name"]),
            losses=m["loss"]["values"],
            loss=m["loss"]["last"],
            signal=m["signal"],
        )
        for m in view["models"]
    )


def live_lines(
    models: tuple[LiveModel, ...], console: Console, height: int, url: str, steps: int | None
) -> list[str]:
    """Exactly `height` lines, none longer than the console is wide, with its colours (NO_COLOR: none)."""
    width = console.width
    colour = console.color_system is not None and not console.no_color
    rule = Text("\u2500" * width, style="dim")
    if not models:
        lines = [rule, Text(f"unvanish {url}"), Text("No model has made a step yet.", style="dim")]
    else:
        main = max(models, key=lambda m: m.steps)
        lines = [rule, _head(main, len(models), url), _progress(main, width, steps), *_verdict(main)]
        lines += map_lines(main.signal, width, height - len(lines), colour=colour)
    lines = (lines + [Text("")] * height)[:height]
    return [_rendered(line, console) for line in lines]


def _head(model: LiveModel, models: int, url: str) -> Text:
    line = Text("unvanish ", style="bold")
    line.append(f"{url}  ", style="underline")
    line.append(visible(words.shortened(model.name, 30)), style="dim")
    if models > 1:
        line.append(f" and {models - 1} more", style="dim")
    return line


def _progress(model: LiveModel, width: int, steps: int | None) -> Text:
    """How far, how fast, how long still (where the end is known), and the loss."""
    line = Text(f"step {model.steps:,}")
    rate = model.steps / model.seconds if model.seconds else None
    if steps:
        share = min(model.steps / steps, 1.0)
        full = round(share * _BAR)
        line.append(f" of {steps:,} ")
        line.append("\u2501" * full, style="green")
        line.append("\u2501" * (_BAR - full), style="dim")
        if rate:
            line.append(f" {_duration(max(steps - model.steps, 0) / rate)} left")
    if rate:
        line.append(f"  {words.plain(rate, 3)}/s")
    line.append(f"  loss {words.plain(model.loss, 4)} ")
    line.append(sparkline(model.losses, max(0, min(60, width - len(line) - 1))), style="cyan")
    return line


def _verdict(model: LiveModel) -> list[Text]:
    first = Text("So far  ", style="dim")
    first.append(visible(model.headline["verdict"]), style=_STYLES[model.verdict])
    second = Text("        ")
    second.append(visible(model.headline["why"]))
    return [first, second]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _rendered(line: Text, console: Console) -> str:
    """One line as the terminal takes it."""
    line = line.copy()
    line.truncate(console.width, overflow="ellipsis")
    line.no_wrap = True
    stream = io.StringIO()
    plain = Console(
        file=stream,
        width=console.width,
        force_terminal=True,
        legacy_windows=False,
        color_system=console.color_system,  # type: ignore[arg-type]
        no_color=console.no_color,
    )
    plain.print(line, end="", overflow="ellipsis", no_wrap=True)
    return stream.getvalue()
