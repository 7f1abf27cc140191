"""The `medrl` command."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module

from medrl import __version__
from medrl.cli.output import steady_output, tell
from medrl.errors import MedrlError, describe
from medrl.memory import ran_out_of_memory
from medrl.systems import all_systems, by_verb

_PROG = "medrl"

#: Each is a module of this package with `main(argv) -> int`.
_COMMANDS = {
    "apply": "move a scan or points by a transform",
    "batch": "work through many scans; what is ended goes on where it stopped",
    "view": "look at a scan and what was found in it, in napari (extra `napari`)",
    "demo": "find landmarks in a real head MRI that comes with the extra `samples`",
    "models": "list the trained models",
    "info": "what a scan is and which models fit it; the card of a model; versions",
    "train": "train agents on your own scans and points",
    "guard": "measure anew what a model was trained on, so that it doubts what is unlike that",
    "evaluate": "measure a model's errors on labelled scans, next to baselines",
    "export": "turn a model into a bundle for MONAI's own tools",
    "datasets": "the public data sets: cards, splits, export",
}


def commands() -> dict[str, str]:
    """What each command does: the verbs of all systems, and what goes for all of them."""
    return {system.verb: system.summary for system in all_systems()} | _COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `medrl` command; what goes wrong ends in one line on standard error.

    Args:
        argv: Command line without the program's name; that of the process if left out.

    Returns:
        Exit code: 0 all done, 1 some scans failed, 2 wrong usage, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    logging.getLogger(_PROG).setLevel(logging.DEBUG if debug else logging.WARNING)
    with steady_output():
        return _end_of(arguments, debug)


def _end_of(arguments: list[str], debug: bool) -> int:
    """The exit code of a command, and a word about what went wrong."""
    try:
        return _dispatch(arguments)
    except SystemExit as end:
        # tyro leaves this way after its help (0) or a complaint about the options (2).
        return end.code if isinstance(end.code, int) else 2 * bool(end.code)
    except KeyboardInterrupt:
        if debug:
            raise
        complain("interrupted")
        return 130
    except MedrlError as error:
        if debug:
            raise
        complain(str(error))
        return 2
    except Exception as error:
        if debug:
            raise
        complain(unexpected(error))
        return 2


def complain(line: str) -> None:
    """Print one line of error, whatever the message looks like."""
    tell("error", line)


def unexpected(error: Exception) -> str:
    """What to say of an error that nobody has foreseen, and how to learn more."""
    known = isinstance(error, ModuleNotFoundError) or ran_out_of_memory(error)
    return describe(error) + ("" if known else " (run again with --debug for details)")


def debugging() -> bool:
    """Tell whether --debug was given: errors then come with their traceback."""
    return logging.getLogger(_PROG).level == logging.DEBUG


def explain(error: Exception) -> str:
    """What to say of an error with a scan; with --debug one that nobody has foreseen is raised."""
    if isinstance(error, MedrlError):
        return str(error)
    if debugging():
        raise error
    return unexpected(error)


def _dispatch(arguments: list[str]) -> int:
    """Find the command and run it; only its own module is imported."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"{_PROG} {__version__}")
        return 0
    name, *rest = arguments
    if name not in (known := commands()):
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
        raise MedrlError(f"there is no command {name!r}; {hint}")
    if not debugging():
        _hush()
    if name != "train":
        # Small networks leave PyTorch's threads waiting most of the time: let them sleep, not spin.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if name in _COMMANDS:
        run: Callable[[list[str]], int] = import_module(f"medrl.cli.{name}").main
        return run(rest)
    from medrl.cli import verb

    return verb.main(by_verb(name), rest)


def _help() -> str:
    """What `medrl --help` prints."""
    lines = [
        f"usage: {_PROG} COMMAND ...",
        "",
        "Agents that look at a 3D scan through a moving window and decide where to go next.",
        "",
        "commands:",
        *(f"  {name:<10}{what}" for name, what in commands().items()),
        "",
        f"`{_PROG} COMMAND --help` explains a command; {_PROG} --version prints the version.",
        "--debug, anywhere on the line, shows the traceback of an error.",
        "Exit codes: 0 all done, 1 some scans failed, 2 wrong usage.",
    ]
    return "\n".join(lines)


def _hush() -> None:
    """Keep the warnings of libraries off the user's terminal."""
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.ERROR)
