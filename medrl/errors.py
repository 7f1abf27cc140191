"""The one error that users are meant to see."""


class MedrlError(Exception):
    """Bad input or wrong use, said in one clear line."""
