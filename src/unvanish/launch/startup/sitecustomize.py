"""Python's start-up hook in the children of a watched script. Python imports it, as its name is sitecustomize.

`unvanish run` puts this folder into the PYTHONPATH of its children (why so: docs/architecture.md). Nothing of
unvanish is imported before a child imports torch, and what the child sees is as it would be without: this folder
leaves sys.path, this module leaves sys.modules, and another sitecustomize, where there is one, is run in its turn.
"""

# ruff: noqa: PTH100, PTH118, PTH120, PLC0415, SIM105 - in every python process: nothing is imported that may not be used
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RUN = "UNVANISH_RUN"
SEED = "UNVANISH_SEED"
_HERE = os.path.dirname(os.path.abspath(__file__))
_LAUNCH = os.path.dirname(_HERE)
_ROOT = os.path.dirname(os.path.dirname(_LAUNCH))


def _wait_for_torch() -> None:
    """Call back when torch is imported, here or in a process that is forked from here."""
    path = os.path.join(_LAUNCH, "importing.py")
    importing = type(sys)("_unvanish_importing")
    loader: Any = type(__spec__.loader)  # python's own, for source files: it keeps the bytecode
    code = loader(importing.__name__, path).get_code(importing.__name__)
    exec(code, importing.__dict__)  # noqa: S102 - a file of ours, without the package around it

    def begin() -> None:
        try:
            main = getattr(sys.modules.get("__main__"), "__file__", None)
            with importing.own_imports(os.path.dirname(os.path.realpath(main)) if main else "", last=_ROOT):
                from unvanish.launch.children import await_training

                await_training()
        except Exception:  # noqa: BLE001, S110 - another python's torch, say: the child goes its own way
            pass

    seed = os.environ.get(SEED)
    if seed:
        importing.seed_everything(int(seed))
    importing.when_imported("torch", begin, in_forks=True)


sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != _HERE]
sys.path_importer_cache.pop(_HERE, None)
if os.environ.get(RUN):
    try:
        _wait_for_torch()
    except Exception:  # noqa: BLE001, S110 - as above
        pass
sys.modules.pop(__name__, None)
import sitecustomize  # type: ignore[import-not-found] # noqa: E402, F401 - the next one; where there is none, python hears just that
