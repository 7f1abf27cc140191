"""Jobs that are no scans, which also run in other processes."""

import sys
from pathlib import Path

# Spawned processes inherit the path, and find the jobs there.
sys.path.insert(0, str(Path(__file__).parent / "stubs"))
