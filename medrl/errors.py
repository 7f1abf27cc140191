"""The one error that users are meant to see, and what to say of the others."""

from __future__ import annotations

from medrl.memory import DOES_NOT_FIT, ran_out_of_memory


class MedrlError(Exception):
    """Bad input or wrong use, said in one clear line."""


def describe(error: BaseException) -> str:
    """What to say, in one line, of an error that nobody has foreseen, or of a lack of memory."""
    if ran_out_of_memory(error):
        return DOES_NOT_FIT
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the package {error.name} is not installed; see `pip install 'medrl[all]'`"
    reason = str(error).strip().split("\n")[0][:300] or "no reason given"
    return f"unexpected {type(error).__name__}: {reason}"
