"""What `before_after.py` runs in processes of its own: one module for each edition of the code."""
