"""Learners and what they share. Needs the ``train`` extra; nothing here is used to run a model."""
