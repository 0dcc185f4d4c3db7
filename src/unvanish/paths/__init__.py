"""Follow a single weight's gradient along all paths through the units of a net. Uses torch, the probe's way to see a graph."""
