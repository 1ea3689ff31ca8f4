"""`dim`: arguments in, exit codes out.

Rule: 0 ok, 1 failed or refuted, 2 usage or configuration, 3 incomplete, 4 refused, 5 no node running; 130 after
Ctrl-C. Every error is at most three lines on stderr: what failed, the likely cause, the next command.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from dimnode.cli.arguments import build_parser
from dimnode.cli.hints import speak_for, with_home
from dimnode.errors import ConfigError, DimError, NoNode, PeerFault, Refused

INTERRUPTED = 130
_PIPE_CLOSED = 141  # what a shell reports for a program that SIGPIPE ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; returns its exit code."""
    wanted = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return _dispatch(wanted)
    except DimError as error:
        return complain(error, "--json" in wanted)
    except PeerFault as fault:
        return complain(DimError("E-cli-11", f"what came in is not valid: {fault.rule}"), "--json" in wanted)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough. Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except Exception:  # noqa: BLE001 - boundary: the last line of defence before a person
        import traceback

        traceback.print_exc()
        hint = "please report the lines above with the command that you typed"
        return complain(DimError("E-cli-99", "this is a bug in dimnode", "", hint), "--json" in wanted)


def _dispatch(arguments: list[str]) -> int:
    speak_for(None)
    chosen = build_parser().parse_args(arguments)
    if chosen.show_version:
        from importlib.metadata import version

        print(f"dimnode {version('dimnode')}")
        return 0
    if chosen.noun is None:
        build_parser().print_help()
        return 0
    speak_for(chosen.home)
    if os.name != "posix":
        what = "dimnode does not run on this system"
        raise ConfigError("E-cli-08", what, "it needs calls of POSIX", "Linux or macOS: docs/platforms.md")
    room, _, name = chosen.run.partition(":")
    command: Any = getattr(import_module(f"dimnode.cli.{room}"), name)
    status: int = command(chosen)
    return status


def complain(error: DimError, as_json: bool = False) -> int:
    """Tell a person what went wrong; the exit code that says whose turn it is."""
    from dimnode.cli.output import say_json, talk

    for line in error.complaint.lines():
        talk(line)
    if as_json:
        said = error.complaint
        told = {"code": said.code, "what": said.what, "cause": said.cause, "hint": with_home(said.hint)}
        say_json({"error": told}, indent=None)
    return exit_code(error)


_OF_A_FILE: Final = frozenset({"E-store-32", "E-models-05", "E-cli-41"})
"""What was named on the command line cannot be read, whoever looked: not a no, but a mistake in typing."""


def exit_code(error: DimError) -> int:
    """By whose fault it is."""
    match error:
        case ConfigError():
            return 2
        case Refused():
            return 2 if error.complaint.code in _OF_A_FILE else 4
        case NoNode():
            return 5
        case _:
            return 1


if __name__ == "__main__":
    sys.exit(main())
