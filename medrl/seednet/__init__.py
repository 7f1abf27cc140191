"""Seed agents: segment a scan by placing the next seed, beside a user who always wins."""
