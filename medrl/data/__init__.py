"""Datalists, labelled scans, and loading them with progress and errors that name the file."""
