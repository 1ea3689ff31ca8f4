"""Mutated files through each decoder behind the walls: an outcome with a code each time, and the pool stays whole."""

import io
import random
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trio
from exec_tools import open_rig
from PIL import Image

from dimnode.exec.launch import Zygote, start_zygote
from dimnode.exec.orders import Facts
from dimnode.records.items import item_tensors
from dimnode.records.tensors import encode_tensors

from exec_models import doubling  # isort: skip - its folder is on the path since exec_tools

pytestmark = pytest.mark.slow
SEED = 20261130
ROUNDS = 60
IMAGE = [
    {"op": "input", "name": "f", "kind": "image"},
    {"colour": "rgb", "into": "p", "name": "f", "op": "decode_image"},
]
IMAGE += [{"filter": "bilinear", "height": 1, "name": "p", "op": "resize", "width": 1}]
IMAGE += [{"into": "x", "name": "p", "op": "reshape", "shape": [3]}]
AUDIO = [
    {"op": "input", "name": "f", "kind": "audio"},
    {"into": "s", "name": "f", "op": "decode_audio", "rate_hz": 8000},
]
AUDIO += [
    {"axis": 0, "name": "s", "op": "truncate", "size": 3},
    {"axis": 0, "name": "s", "op": "pad", "size": 3, "value": 0},
]
AUDIO += [{"into": "x", "name": "s", "op": "copy"}]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with start_zygote() as started:
        yield started


def pictures() -> list[bytes]:
    found = []
    pixels = np.random.default_rng(3).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "WEBP", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        found.append(buffer.getvalue())
    return found


def sounds() -> list[bytes]:
    found = []
    for kind, subtype in (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16")):
        buffer = io.BytesIO()
        soundfile.write(buffer, np.sin(np.arange(2000) / 9), 16_000, format=kind, subtype=subtype)
        found.append(buffer.getvalue())
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(1)
        file.setframerate(44_100)
        file.writeframes(bytes(range(256)) * 4)
    return [*found, buffer.getvalue()]


def mutated(rng: random.Random, raw: bytes) -> bytes:
    """A few bytes changed, doubled or cut, most of them near the front, where headers are."""
    out = bytearray(raw)
    for _ in range(rng.randint(1, 8)):
        place = min(len(out) - 1, int(rng.expovariate(1 / 60))) if rng.random() < 0.7 else rng.randrange(len(out))
        match rng.randrange(4):
            case 0:
                out[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 1:
                out[place] ^= 1 << rng.randrange(8)
            case 2:
                out[place:place] = out[place : place + rng.randint(1, 40)]
            case _ if len(out) > 64:
                del out[place : place + rng.randint(1, 40)]
    return bytes(out)


@pytest.mark.parametrize(("words", "whole"), [(IMAGE, pictures()), (AUDIO, sounds())], ids=["pictures", "sounds"])
def test_a_broken_file_is_an_outcome_and_the_next_order_is_run(
    zygote: Zygote, tmp_path: Path, words: list[dict[str, object]], whole: list[bytes]
) -> None:
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    files = [mutated(rng, rng.choice(whole)) for _ in range(ROUNDS)]

    async def main() -> None:
        async with open_rig(zygote, tmp_path) as rig:
            plain = rig.order(doubling(3))
            assert plain.model is not None
            facts = Facts(pre=tuple(words))
            model = replace(plain.model, id="fuzz", facts=facts)
            for raw in [*files, *whole]:
                order = replace(rig.order(blob=encode_tensors(item_tensors("f", [raw]))), model=model)
                (done,) = await rig.run(order)
                assert done.status in ("ok", "failed"), (done.code, done.message, raw[:64].hex())
                assert done.status == "ok" or 95 <= int(done.code.rpartition("-")[2]) <= 102
            ended = [rig.outcomes[key].status for key in sorted(rig.outcomes)][-len(whole) :]
            assert ended == ["ok"] * len(whole)
            assert len(await rig.pids()) == 1, "one worker read them all"

    trio.run(main)
