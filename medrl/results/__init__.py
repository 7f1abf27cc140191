"""What the results of all systems share."""
