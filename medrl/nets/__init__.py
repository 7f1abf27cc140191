"""Network blocks shared by agents."""
