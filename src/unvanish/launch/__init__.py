"""Zero-code start: run a user's script in this process just as plain python would run it.

What the script can see of itself is python's own: ``__main__``, ``sys.argv``, ``sys.path[0]``, the working
directory, its streams, its exit code, the traceback of an uncaught exception. torch is not imported before
the script imports it, so that what it sets first (OMP_NUM_THREADS, CUDA_VISIBLE_DEVICES ...) still counts;
:func:`when_imported` is how the watching begins at that very moment.
"""

from unvanish.launch.children import Told, announced, await_training
from unvanish.launch.ending import INTERRUPTED, TERMINATED, Abort, Exit, Terminated
from unvanish.launch.hints import hint_for
from unvanish.launch.importing import own_imports, seed_everything, when_imported
from unvanish.launch.start import run_target
from unvanish.launch.target import Target, is_factory

__all__ = [
    "INTERRUPTED",
    "TERMINATED",
    "Abort",
    "Exit",
    "Target",
    "Terminated",
    "Told",
    "announced",
    "await_training",
    "hint_for",
    "is_factory",
    "own_imports",
    "run_target",
    "seed_everything",
    "when_imported",
]
