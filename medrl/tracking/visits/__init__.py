"""Points and structures through visits: agents find in a later scan what was marked in another."""
