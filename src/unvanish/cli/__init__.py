"""The command line: ``unvanish demo | run | treat | check | report | serve | compare | export | explain``.

What it says goes to stderr, save --json -.

All but click is imported inside of the commands: ``unvanish --help`` is instant and never meets torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from unvanish import launch
from unvanish.cli import files
from unvanish.cli.check import CheckOptions, check_target
from unvanish.cli.watch import AT_LEAST, FAILED, RunOptions, watch_script
from unvanish.errors import UnvanishError

DEFAULT_OUT = "unvanish_runs"
USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. `arguments` default to the process's own."""
    stderr = sys.stderr  # a script that is run may put another in its place
    try:
        code = unvanish.main(args=arguments, prog_name="unvanish", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return USAGE
    except click.Abort:
        files.say("interrupted", stderr)
        return launch.INTERRUPTED
    except UnvanishError as error:
        files.say(str(error), stderr)
        return FAILED
    except BrokenPipeError:  # `unvanish explain RUN | head`: nobody reads on, which is no fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILED
    return code if isinstance(code, int) else 0


class _Commands(click.Group):
    """A group that answers an unknown command with the list of those there are."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Click's own, with a better answer to an unknown name."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            there = ", ".join(self.list_commands(ctx))
            raise click.UsageError(f"there is no command {args[0]!r}; there are: {there}", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """In the order in which a user meets them."""
        return list(self.commands)


class _RunCommand(click.Command):
    """Our options end at SCRIPT or -m MODULE: what stands behind is the script's, whatever it looks like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Click's own, with a ``--`` put in where the script's arguments begin."""
        end = self._end_of_ours(args)
        return super().parse_args(ctx, args if end is None else [*args[:end], "--", *args[end:]])

    def _end_of_ours(self, args: list[str]) -> int | None:
        takes_value = {
            name for p in self.params if isinstance(p, click.Option) and not p.is_flag for name in p.opts
        }
        index = 0
        while index < len(args):
            word = args[index]
            if word == "--":
                return None  # the user put it there; click handles it
            if word.startswith("-m") and not word.startswith("--"):
                end = index + (2 if word == "-m" else 1)
                return end if end <= len(args) else None  # -m without a name: click says so
            if not word.startswith("-") or word == "-":
                return index
            index += 2 if word in takes_value else 1
        return None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(sys.modules["unvanish"].__version__, prog_name="unvanish")
def unvanish() -> None:
    """Tells where the learning signal of a PyTorch net dies, why, and which fix brings it back."""


_json = click.option(
    "--json", "json_path", metavar="FILE", help="Write the result as JSON to FILE (- = standard output)."
)
_out = click.option(
    "--out", default=DEFAULT_OUT, show_default=True, metavar="DIR", help="The folder where runs are kept."
)


@unvanish.command()
@_out
@_json
def demo(out: str, json_path: str | None) -> int:
    """The main job end to end, on a net that is stuck: watch, diagnose, explain, treat, show."""
    from unvanish.cli.tell import console_on
    from unvanish.demo import run_demo

    files.writable_json(json_path)
    folder = files.writable_folder(out)
    return run_demo(folder, json_path, console_on(sys.stderr if json_path == files.STDOUT else sys.stdout))


@unvanish.command(cls=_RunCommand, context_settings={"allow_interspersed_args": False})
@_json
@_out
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop the script cleanly after N optimizer steps.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), metavar="S", help="Seed python, numpy and torch first."
)
@click.option(
    "--every", type=click.IntRange(min=1), metavar="N", help="Trace every N-th step, instead of the schedule."
)
@click.option("--exact", is_flag=True, help="Look at every element, not at samples of large tensors; slower.")
@click.option(
    "--fail-on",
    type=click.Choice(list(AT_LEAST)),
    help="Exit with 3 when something at least as severe is found and the script itself ended with 0.",
)
@click.option("--recipe", metavar="FILE", help="Apply the treatment that `unvanish treat` wrote first.")
@click.option(
    "--live", is_flag=True, help="Show the run while it trains, in the browser and on the terminal."
)
@click.option(
    "--scratch", metavar="DIR", hidden=True, help="Of `treat`: what the script writes is kept in DIR alone."
)
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("-m", "module", metavar="MODULE", help="Run a module, as python -m does.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="SCRIPT|-m MODULE [ARGS]...")
def run(module: str | None, words: tuple[str, ...], **options: Any) -> int:
    """Watch an unchanged training script, and diagnose it at its end.

    Options stand before SCRIPT (or -m MODULE); everything behind it is the script's own. The exit code is the
    script's.
    """
    target = _target(
        module, words, "name the script to watch: unvanish run [options] SCRIPT|-m MODULE [ARGS]"
    )
    return watch_script(target, RunOptions(**options))


@unvanish.command(cls=_RunCommand, context_settings={"allow_interspersed_args": False})
@_json
@_out
@click.option(
    "--steps", type=click.IntRange(min=1), metavar="N", help="Watch the script for N steps at most."
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 100), metavar="S", help="Seed python, numpy and torch first."
)
@click.option("--trial-steps", type=click.IntRange(min=10), metavar="N", help="Steps of one trial, at most.")
@click.option(
    "--seeds",
    type=click.IntRange(2, 50),
    default=5,
    show_default=True,
    metavar="K",
    help="Paired seeds of the test.",
)
@click.option(
    "--budget", type=click.FloatRange(min=1.0), metavar="SECONDS", help="Stop to try after so long."
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where trials run: this machine's processes, or a Ray cluster.",
)
@click.option("--only", metavar="NAME[,NAME]", help="Try these treatments or candidates alone.")
@click.option(
    "--allow", type=click.Choice(["unsafe"]), help="Try what takes something away from the net as well."
)
@click.option("--recipe", metavar="FILE", help="Where the recipe is written; by default in the run's folder.")
@click.option(
    "--diff", metavar="FILE", help="Where the source patch is written; by default in the run's folder."
)
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("-m", "module", metavar="MODULE", help="Treat a module, as python -m runs it.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="SCRIPT|-m MODULE [ARGS]|FILE.py:FACTORY")
def treat(module: str | None, words: tuple[str, ...], **options: Any) -> int:
    """Find a cure for a script that does not learn, and verify it on paired seeds; the script is not changed.

    Writes a recipe (unvanish run --recipe FILE SCRIPT runs it) and, where it can, a source patch.
    """
    from unvanish.cli.treat import TreatOptions, treat_script

    target = _target(module, words, "name what to treat: unvanish treat [options] SCRIPT|FILE.py:FACTORY")
    return treat_script(target, TreatOptions(**options))


def _target(module: str | None, words: tuple[str, ...], missing: str) -> launch.Target:
    if module is not None:
        return launch.Target(name=module, arguments=words, is_module=True)
    if words:
        return launch.Target(name=words[0], arguments=words[1:])
    raise click.UsageError(missing)


@unvanish.command(cls=_RunCommand, context_settings={"allow_interspersed_args": False})
@_json
@_out
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), metavar="S", help="Seed python, numpy and torch first."
)
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("-m", "module", metavar="MODULE", help="Run a module, as python -m does.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="SCRIPT|-m MODULE [ARGS]|FILE.py:FACTORY")
def check(module: str | None, words: tuple[str, ...], **options: Any) -> int:
    """Before training: predict and measure every layer's gain, and say what would carry the net.

    A SCRIPT is run up to its first optimizer step, which is not made. A FACTORY is called without arguments and
    returns a model, (model, batch) or (model, batch, loss_fn).
    """
    target = _target(module, words, "name what to check: unvanish check [options] SCRIPT|FILE.py:FACTORY")
    return check_target(target, CheckOptions(**options))


@unvanish.command()
@click.argument("run_path", metavar="RUN")
@click.option(
    "-o", "--output", metavar="FILE.html", help="Where to write the page; by default in the run's folder."
)
@click.option("--text", is_flag=True, help="Tell it here instead, with the signal map in block characters.")
def report(run_path: str, output: str | None, text: bool) -> int:
    """Write the page of a run: one HTML file that needs nothing else, and no network."""
    from unvanish.session import write_report

    if text:
        if output is not None:
            raise click.UsageError(
                "--text goes to the terminal, and -o FILE.html to a file: give one of them"
            )
        from unvanish.cli.tell import tell_story

        tell_story(run_path)
        return 0

    click.echo(write_report(run_path, Path(output) if output else None))
    return 0


@unvanish.command()
@click.argument("folder", metavar="[DIR]", default=DEFAULT_OUT)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="HOST",
    help="Any but this machine's own wants a token.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="PORT", help="By default 8777; 0 takes a free one."
)
@click.option("--token", metavar="WORD", help="What readers have to give; made where --host needs one.")
def serve(folder: str, host: str, port: int | None, token: str | None) -> int:
    """Show a folder of runs (or one run) in the browser, live while they train: a list, each page, comparisons.

    Only this machine can see it unless --host says otherwise, and nothing is written.
    """
    from unvanish.cli.serve import serve_folder

    return serve_folder(folder, host, port, token)


@unvanish.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("-o", "--output", metavar="FILE.html", help="Write one page with their maps side by side.")
@_json
def compare(runs: tuple[str, ...], output: str | None, json_path: str | None) -> int:
    """Put runs side by side: verdicts, losses, and where their signal differs most from the first one's."""
    from unvanish.cli.serve import compare_runs

    return compare_runs(runs, output, json_path)


@unvanish.command()
@click.argument("run_path", metavar="RUN")
@click.option(
    "--to", required=True, type=click.Choice(["parquet", "csv", "json", "tensorboard"]), help="The format."
)
@click.option(
    "-o", "--output", metavar="PATH", help="A folder, or a file for json; by default in the run's folder."
)
def export(run_path: str, to: str, output: str | None) -> int:
    """Write the tables of a run (steps, parameters, weights, signal, findings) for other tools; says where."""
    from unvanish.cli.export import export_run

    click.echo(export_run(run_path, to, output))
    return 0


@unvanish.command()
@click.argument("target", metavar="RUN|SCRIPT|FILE.py:FACTORY", required=False)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGS]")
@click.option(
    "--parameter", metavar="NAME", help="Which parameter's gradient; by default the most starved one."
)
@click.option(
    "--index", metavar="I,J", help="Follow one weight of it along all paths through the units; not for a RUN."
)
@click.option(
    "--paths", type=click.IntRange(1, 100), default=5, show_default=True, help="How many of them to show."
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="For a SCRIPT: stop it after N optimizer steps. The first one is explained.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), metavar="S", help="Seed python, numpy and torch first."
)
@click.option(
    "--out", metavar="DIR", help="For a SCRIPT: keep the run in this folder; by default it is not kept."
)
@click.option(
    "--toy", is_flag=True, help="The textbook net of two inputs and w1..w6, in symbols and numbers."
)
@click.option(
    "--activation",
    type=click.Choice(["sigmoid", "relu", "both"]),
    default="both",
    show_default=True,
    help="For --toy.",
)
@_json
def explain(target: str | None, toy: bool, activation: str, json_path: str | None, **options: Any) -> int:
    """Show the product of factors of the chain rule, number by number, from the loss to one parameter.

    Of a recorded RUN, of a training SCRIPT (it is run for one step; its own arguments stand behind --), or of
    what a function in a file builds: FILE.py:FACTORY gives (model, batch, loss_fn), (model, batch) or a model.
    """
    if toy == (target is not None):
        raise click.UsageError("name a run, a script or FILE.py:FACTORY, or say --toy (one of the two)")
    json_file = files.writable_json(json_path)
    if target is None:
        from unvanish.cli import tell

        result, show = tell.toy(activation)
    else:
        from unvanish.cli import explaining

        result, show = explaining.explain_target(target, explaining.ExplainOptions(**options))
    if json_path != files.STDOUT:
        from rich.console import Console

        show(Console(file=sys.stdout))
    files.write_json(result, json_path, json_file, sys.stdout)
    return 0
