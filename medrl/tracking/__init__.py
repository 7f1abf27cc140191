"""Tracking agents: objects through the frames of films and 4D scans, points through visits."""
