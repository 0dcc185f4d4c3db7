"""A script that is run as an experiment must not change the user's files: what it writes goes to a scratch folder."""

from unvanish.launch.isolation.scratch import scratch_folder
from unvanish.launch.isolation.ways import apart, isolate, isolated, redirected
from unvanish.launch.isolation.zones import folders_of

__all__ = ["apart", "folders_of", "isolate", "isolated", "redirected", "scratch_folder"]
