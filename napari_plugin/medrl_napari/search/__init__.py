"""What the widgets share whose agents search a scan for named things that a person may correct."""
