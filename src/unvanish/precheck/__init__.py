"""Before training: what theory expects of a net, what a random signal sent back shows, what would carry it."""
