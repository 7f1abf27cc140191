"""The one error that users are meant to see, and what to say of the others."""


class MedrlError(Exception):
    """Bad input or wrong use, said in one clear line."""


def describe(error: BaseException) -> str:
    """What to say, in one line, of an error that nobody has foreseen."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the package {error.name} is not installed; see `pip install 'medrl[all]'`"
    reason = str(error).strip().split("\n")[0][:300] or "no reason given"
    return f"unexpected {type(error).__name__}: {reason}"
