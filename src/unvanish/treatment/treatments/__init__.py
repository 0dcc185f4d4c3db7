"""The treatments, one file each. They know nothing of each other; the registry lists them."""
