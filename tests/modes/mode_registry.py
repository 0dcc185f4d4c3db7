"""All modes, in the order of the table. A file of modes ends with its tuple MODES; put it into FILES."""

from __future__ import annotations

import mode_compiled
import mode_loops
import mode_ranks
import mode_structures
import mode_surroundings
from mode_base import Mode

FILES = (mode_loops, mode_compiled, mode_structures, mode_surroundings, mode_ranks)
MODES: tuple[Mode, ...] = tuple(mode for file in FILES for mode in file.MODES)
