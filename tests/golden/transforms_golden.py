"""Make transforms.json: what the reference libraries say, for the words that imitate them.

    pip install --no-deps --target REF magika==1.0.3 transformers==5.23.0 regex
    PYTHONPATH=.:REF python -m tests.golden.transforms_golden

magika: the features that its package extracts. transformers: mel filter banks and log-mel spectra of audio_utils (NumPy
only). The signal and the files are made by formulas here, so that the file holds results alone.
"""

import hashlib
import json
from io import BytesIO
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "transforms.json"


def files() -> dict[str, bytes]:
    """Byte strings with every edge that the extraction has."""
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, 10_000, dtype=np.uint8).tobytes()
    return {
        "short": b"  \n\tdef f(x):\n    return x\n\n   ",
        "spaces": b" " * 5000,
        "middle": noise[:2000],
        "block": noise[:4096],
        "long": b" \n" * 600 + noise + b"\r\n\x0b" * 400,
    }


def signal() -> np.ndarray:
    """A second of a chirp at 16 kHz, float32."""
    time = np.arange(16_000) / 16_000
    return (0.5 * np.sin(2 * np.pi * (200 + 1500 * time) * time)).astype(np.float32)


MELS = {
    "whisper": {"fft": 400, "hop": 160, "mels": 80, "log": "whisper"},
    "htk": {"fft": 512, "hop": 256, "mels": 40, "scale": "htk", "norm": "none", "low_hz": 20, "high_hz": 7600},
    "plain": {"fft": 400, "hop": 160, "mels": 23, "log": "log10", "centre": False},
}


def sampled(array: np.ndarray) -> dict[str, object]:
    """Some numbers of an array, its shape and its sum."""
    flat = np.asarray(array, dtype=np.float64).ravel()
    picked = np.linspace(0, len(flat) - 1, 40).astype(int)
    return {"shape": list(array.shape), "sum": float(flat.sum()), "picked": flat[picked].tolist()}


def main() -> None:
    """Write the file."""
    from magika.magika import Magika, Seekable
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    features = {}
    for name, raw in files().items():
        found = Magika._extract_features_from_seekable(Seekable(BytesIO(raw)), 1024, 0, 1024, 256, 4096, False)
        features[name] = hashlib.sha256(np.array([*found.beg, *found.end], dtype="<i4").tobytes()).hexdigest()
    mels = {}
    for name, said in MELS.items():
        scale, norm = said.get("scale", "slaney"), said.get("norm", "slaney")
        low, high = said.get("low_hz", 0), said.get("high_hz", 8000)
        bank = mel_filter_bank(
            said["fft"] // 2 + 1, said["mels"], low, high, 16_000, None if norm == "none" else norm, scale
        )
        found = spectrogram(
            signal(),
            window_function(said["fft"], "hann"),
            frame_length=said["fft"],
            hop_length=said["hop"],
            power=2.0,
            center=said.get("centre", True),
            mel_filters=bank,
            log_mel="log10" if said.get("log") in ("whisper", "log10") else "log",
            mel_floor=1e-10,
            dtype=np.float64,
        )
        if said.get("log") == "whisper":
            found = found[:, :-1]
            found = (np.maximum(found, found.max() - 8.0) + 4.0) / 4.0
        mels[name] = sampled(found)
    GOLDEN.write_text(json.dumps({"magika": features, "mels": mels}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
