"""The public data sets that medrl is trained and tested on: cards, splits and datalists."""
