"""A single weight's gradient, followed along all paths through the units of a net. Uses torch and the probe."""
