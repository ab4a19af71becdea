"""Feature sets: which numbers describe a track, in which order, and how they are computed."""
