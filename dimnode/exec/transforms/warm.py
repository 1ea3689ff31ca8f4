"""In the zygote, before any fork: what the transforms need, imported and used once.

Rule: behind its walls a worker opens no file, so that nothing may be imported there for the first time. The process
still has one thread afterwards.
"""

import io
import os
import wave

import numpy as np

from dimnode.exec.transforms import images, sounds, texts

_TOKENIZER = (
    b'{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":null,'
    b'"post_processor":null,"decoder":null,"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}'
)


def installed() -> tuple[str, ...]:
    """Which of the optional parts are here: text, image, audio. Imports them."""
    found = []
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # no thread of its own
    try:
        import tokenizers  # noqa: F401

        found.append("text")
    except ImportError:
        pass
    if images.imported():
        found.append("image")
    if sounds.imported():
        found.append("audio")
    return tuple(found)


def warm_up() -> tuple[str, ...]:
    """Do a little of everything. Returns what is installed."""
    found = installed()
    sounds.log_mel({"rate_hz": 16_000, "fft": 16, "hop": 8, "mels": 2}, np.ones(64, dtype=np.float32), 0)
    if "text" in found:
        op = {"into": "ids", "max_tokens": 4}
        texts.tokenise(op, texts.load_tokenizer(_TOKENIZER), ["a"], None)
    if "image" in found:
        from PIL import Image

        for kind in images.FORMATS:
            buffer = io.BytesIO()
            Image.new("RGB", (2, 2)).save(buffer, kind)
            picture = images.decode_image({"colour": "grey"}, buffer.getvalue())
            images.resize({"filter": "bilinear", "height": 3, "width": 1}, picture, 0)
    if "audio" in found:
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(bytes(64))
        sounds.decode_audio({"rate_hz": 16_000}, buffer.getvalue())
    return found
