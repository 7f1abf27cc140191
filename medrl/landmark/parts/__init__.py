"""Part detector with a spatial model: heat maps of all landmarks that speak to each other.

Tompson et al. 2014 (NIPS), in three dimensions. It does not walk: it is what landmark agents are
compared with, and :class:`medrl.LandmarkDetector` runs its models like theirs.
"""
