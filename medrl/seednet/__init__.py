"""Seeds placed by an agent, and the segmenters that turn seeds into a mask while one clicks."""
