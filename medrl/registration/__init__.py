"""Registration: agents that move one scan step by step until it lies on another."""
