"""Learners and what they share. Needs the ``train`` extra; nothing here is used to run a model."""

import logging

import torchrl as _torchrl  # sets its own log level, so it comes first

# TorchRL reports every buffer it allocates on the user's terminal.
logging.getLogger(_torchrl.__name__).setLevel(logging.WARNING)
