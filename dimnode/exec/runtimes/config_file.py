"""The config.json of a declared architecture, read with suspicion.

Rule: a config describes sizes and nothing else. A key that some loader takes for the name of code to fetch or to run is
refused wherever it stands, and a number is only used after it was found to be one within bounds.
Pure: no I/O, no clock.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from dimnode.errors import RunFailed
from dimnode.exec import orders
from dimnode.exec.runtimes.base import Files
from dimnode.limits import LIMITS

CODE_KEYS: Final = frozenset({"auto_map", "model_file", "custom_pipelines", "trust_remote_code", "custom_object"})
Config = Mapping[str, Any]


def config_of(files: Files) -> Config:
    """The one file of role config, or of several the config.json nearest to the top, as a map. Raises `RunFailed`."""
    found = [(path, file.raw) for path, file in files.items() if file.role == "config"]
    if len(found) > 1:  # folders hold others, for tools that are not ours
        found = [(path, raw) for path, raw in found if path.rpartition("/")[2] == "config.json"]
        least = min((path.count("/") for path, _ in found), default=0)
        found = [(path, raw) for path, raw in found if path.count("/") == least]
    if len(found) != 1:
        raise RunFailed(orders.BAD_CONFIG, f"a declared architecture has one config.json, not {len(found)}")
    path, raw = found[0]
    if len(raw) > LIMITS.exec.model_config_bytes_max:
        raise RunFailed(orders.BAD_CONFIG, f"{path} has {len(raw)} bytes, a description of sizes does not")
    try:
        config = json.loads(bytes(raw), object_pairs_hook=each_once, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        what = f"{path} is not JSON, or says something twice or a number that is none"
        raise RunFailed(orders.BAD_CONFIG, what) from None
    if type(config) is not dict:
        raise RunFailed(orders.BAD_CONFIG, f"{path} is no map")
    _refuse_code(path, config)
    return config


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json.loads: a map without a name twice, of which two readers could believe different ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _finite(word: str) -> float:
    """1e999 is a number of JSON, and none that a machine has."""
    found = float(word)
    return found if math.isfinite(found) else _no_number(word)


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def whole(config: Config, key: str, most: int, default: int | None = None) -> int:
    """A whole number from 1 to `most`. Raises `RunFailed`."""
    found = config.get(key, default)
    if type(found) is not int or not 1 <= found <= most:
        raise RunFailed(orders.BAD_CONFIG, f"the config's {key} has to be a whole number from 1 to {most}")
    return found


def number(config: Config, key: str, least: float, most: float) -> float:
    """A number between `least` and `most`. Raises `RunFailed`."""
    found = config.get(key)
    if found is None or type(found) not in (int, float) or not least <= found <= most:
        raise RunFailed(orders.BAD_CONFIG, f"the config's {key} has to be a number from {least:g} to {most:g}")
    return float(found)


def _refuse_code(path: str, value: Any, depth: int = 0) -> None:
    if depth > 16:
        raise RunFailed(orders.BAD_CONFIG, f"{path} is nested too deeply")
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in CODE_KEYS and inner not in (None, False, "", {}, []):
                raise RunFailed(
                    orders.CODE_IN_CONFIG,
                    f"{path} names code to run ({key}); only architectures that are part of dimnode run here",
                )
            _refuse_code(path, inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _refuse_code(path, inner, depth + 1)
