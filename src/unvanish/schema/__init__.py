"""The nouns of unvanish: frozen, plain, stdlib only. Every stage speaks in these and in nothing else."""
