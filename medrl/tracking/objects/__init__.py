"""Objects in films and 4D scans: one agent a track, the agents of a scene decide together."""
