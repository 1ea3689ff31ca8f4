"""The words that imitate a library give what that library gave (transforms_golden.py made the file)."""

import hashlib
import json

import numpy as np
import pytest

from dimnode.exec.transforms.sounds import log_mel
from dimnode.exec.transforms.texts import bytes_window
from tests.golden.transforms_golden import GOLDEN, MELS, files, sampled, signal

SAID = json.loads(GOLDEN.read_text(encoding="utf-8"))
MAGIKA = {"begin": 1024, "end": 1024, "block": 4096, "strip": True, "pad_value": 256}


@pytest.mark.parametrize("name", files())
def test_bytes_window_takes_magikas_features(name):
    found = bytes_window(MAGIKA, files()[name])
    assert found.dtype == np.int32
    assert hashlib.sha256(found.astype("<i4").tobytes()).hexdigest() == SAID["magika"][name]


@pytest.mark.parametrize("name", MELS)
def test_log_mel_is_transformers_spectrogram(name):
    found, said = (
        sampled(log_mel({"rate_hz": 16_000, **MELS[name]}, signal().astype(np.float64), 0)),
        SAID["mels"][name],
    )
    assert found["shape"] == said["shape"]
    np.testing.assert_allclose(found["picked"], said["picked"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["sum"], said["sum"], rtol=1e-6)
