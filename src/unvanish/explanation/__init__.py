"""From measured numbers to an explanation that a person follows: chains, causes, prose."""
