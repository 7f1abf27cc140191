"""One panel for the agents of any system that is registered."""
