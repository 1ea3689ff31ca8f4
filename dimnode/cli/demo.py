"""`dim demo`: hands over to the story.

Rule: nothing of the demo is imported before somebody asks for it.
"""

import argparse
from pathlib import Path

from dimnode.errors import ConfigError

_STORIES = ("wdbc",)


def demo(chosen: argparse.Namespace) -> int:
    """A whole swarm on this machine."""
    if chosen.story not in _STORIES:
        what = f"there is no story {chosen.story!r} in this version"
        raise ConfigError("E-cli-12", what, "", "dim demo --story wdbc")
    from dimnode.demo.assets_index import WDBC_CSV
    from dimnode.demo.split import read_patients
    from dimnode.demo.story import main

    if chosen.patients:
        try:
            read_patients(Path(chosen.patients))
        except OSError as error:
            raise ConfigError("E-cli-41", f"cannot read {chosen.patients}", error.strerror or "") from None
        except ValueError as error:
            what = f"{chosen.patients} is no table of patients"
            raise ConfigError(
                "E-cli-41", what, str(error), "dim demo without --patients uses the shipped file"
            ) from None
    return main(
        as_json=chosen.json,
        keep=chosen.keep,
        folder=Path(chosen.folder),
        patients=Path(chosen.patients) if chosen.patients else WDBC_CSV,
    )
