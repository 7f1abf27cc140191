"""What each verb does to a case."""
