"""The words that take sound: WAV and FLAC by libsndfile, one rate, frames, log-mel spectra.

Rule: decoding is bounded by what has come out, not by what a header claims. Runs only inside a worker: the parser is C
and the bytes are a stranger's.
"""

import io
from typing import Any, Final

import numpy as np

from dimnode.exec.mapping import Array
from dimnode.exec.transforms.arrays import NANO, Words, resample
from dimnode.exec.transforms.values import AUDIO_TOO_LONG, BAD_AUDIO, NO_EXTRA, UNFIT_VALUE, fail, floats, rounded
from dimnode.limits import LIMITS

FORMATS: Final = ("WAV", "WAVEX", "FLAC")
_BLOCK_FRAMES: Final = 1 << 18
_CHANNELS_MAX: Final = 32
_SPECTRUM_BLOCK: Final = 1 << 12


def imported() -> bool:
    """Import all that will be needed, once, before the walls stand. False when soundfile is not installed."""
    try:
        import soundfile  # noqa: F401
    except (ImportError, OSError):  # OSError: its C library is not there
        return False
    return True


def decode_audio(op: Words, raw: bytes) -> Array:
    """float32 [samples], or [samples, channels] when all are kept, at the wanted rate."""
    if not imported():
        fail(NO_EXTRA, "this node cannot read sound", "pip install 'dimnode[audio]'")
    if not raw:
        fail(BAD_AUDIO, "the file is empty")
    samples, rate = _decoded(raw)
    if not len(samples):
        fail(BAD_AUDIO, "the sound has no sample")
    if not np.isfinite(samples).all():
        fail(BAD_AUDIO, "the sound has NaN or infinity")
    if op.get("channels", "mono") == "mono":
        samples = samples.astype(np.float64).sum(axis=1) / samples.shape[1]
    if -(-len(samples) * op["rate_hz"] // rate) > LIMITS.transforms.audio_samples_max:
        fail(AUDIO_TOO_LONG, f"more than {LIMITS.transforms.audio_samples_max} samples at {op['rate_hz']} Hz")
    return resample(samples, rate, op["rate_hz"]).astype(np.float32)


def _decoded(raw: bytes) -> tuple[Array, int]:
    import soundfile

    blocks: list[Array] = []
    try:
        with soundfile.SoundFile(io.BytesIO(raw)) as file:
            if file.format not in FORMATS:
                fail(BAD_AUDIO, f"sound of the format {file.format} is not read", "WAV or FLAC")
            rate, channels = int(file.samplerate), int(file.channels)
            if not 1000 <= rate <= 384_000 or channels > _CHANNELS_MAX:
                fail(BAD_AUDIO, f"the sound has {channels} channels at {rate} Hz")
            left = LIMITS.transforms.audio_samples_max // channels
            while len(block := file.read(min(_BLOCK_FRAMES, left + 1), dtype="float32", always_2d=True)):
                left -= len(block)
                if left < 0:
                    fail(AUDIO_TOO_LONG, f"the sound has more than {LIMITS.transforms.audio_samples_max} samples")
                blocks.append(block)
    except soundfile.LibsndfileError as error:  # its text names our buffer, its reason does not
        fail(BAD_AUDIO, f"the sound cannot be read: {error.error_string[-120:]}", "WAV or FLAC")
    except (RuntimeError, ValueError, TypeError) as error:
        fail(BAD_AUDIO, f"the sound cannot be read: {str(error)[-120:]}", "WAV or FLAC")
    return (np.concatenate(blocks) if blocks else np.zeros((0, 1), dtype=np.float32)), rate


def frame(op: Words, array: Array, lead: int) -> Array:
    """[samples] to [frames, size], each `hop` after the one before; `left` zeros stand in front."""
    if lead:
        return np.stack([frame(op, item, 0) for item in array])
    if array.ndim != 1 or not len(array):
        fail(UNFIT_VALUE, f"frame of a value of shape {list(array.shape)}", "it takes samples in one row")
    size, hop, left = op["size"], op["hop"], op.get("left", 0)
    length = left + len(array)
    if op.get("tail", "pad") == "pad":
        count = -(-max(0, length - size) // hop) + 1
    else:
        count = (length - size) // hop + 1 if length >= size else 0
    if count * size * array.itemsize > LIMITS.transforms.value_bytes_max or size > LIMITS.transforms.audio_samples_max:
        fail(AUDIO_TOO_LONG, f"{count} frames of {size} samples")
    whole = np.zeros(max(length, (count - 1) * hop + size, size), dtype=array.dtype)
    whole[left:length] = array
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(whole, size)[::hop][:count])


def log_mel(op: Words, array: Array, lead: int) -> Array:
    """[samples] to [mels, frames]: power spectra of Hann windows through a bank of triangles, and a logarithm."""
    if lead:
        return np.stack([log_mel(op, item, 0) for item in array])
    if array.ndim != 1:
        fail(UNFIT_VALUE, f"log_mel of a value of shape {list(array.shape)}")
    size, hop = op["fft"], op["hop"]
    wide = floats(array)
    if op.get("centre", True):
        if len(wide) <= size // 2:
            fail(UNFIT_VALUE, f"log_mel of {len(wide)} samples", f"more than {size // 2} are needed")
        wide = np.pad(wide, size // 2, mode="reflect")
    if len(wide) < size:
        fail(UNFIT_VALUE, f"log_mel of {len(wide)} samples", f"at least {size} are needed")
    windows = np.lib.stride_tricks.sliding_window_view(wide, size)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    bank = mel_bank(op)
    mels = np.empty((op["mels"], len(windows)))
    for start in range(0, len(windows), _SPECTRUM_BLOCK):
        spectra = np.square(np.abs(np.fft.rfft(windows[start : start + _SPECTRUM_BLOCK] * hann, axis=1)))
        mels[:, start : start + len(spectra)] = bank @ spectra.T
    return rounded(_logarithm(op, mels), array)


def _logarithm(op: Words, mels: Array) -> Array:
    kind = op.get("log", "ln")
    if kind == "none":
        return mels
    floor = max(op.get("floor_nano", 0) / NANO, 1e-10)
    wide = np.log(np.maximum(mels, floor)) if kind == "ln" else np.log10(np.maximum(mels, floor))
    if kind != "whisper":
        return np.asarray(wide)
    wide = wide[:, :-1]  # Whisper leaves out the last frame
    return np.asarray((np.maximum(wide, wide.max(initial=-np.inf) - 8.0) + 4.0) / 4.0)


def mel_bank(op: Words) -> Array:
    """float64 [mels, fft // 2 + 1]. Source: Slaney's Auditory Toolbox and HTK, as librosa.filters.mel has them."""
    rate, size, count = op["rate_hz"], op["fft"], op["mels"]
    low, high = float(op.get("low_hz", 0)), float(op.get("high_hz", rate // 2))
    if not low < high <= rate / 2:
        fail(UNFIT_VALUE, f"mels from {low:g} to {high:g} Hz at a rate of {rate}")
    to_mel, to_hz = (_slaney_mel, _slaney_hz) if op.get("scale", "slaney") == "slaney" else (_htk_mel, _htk_hz)
    edges = to_hz(np.linspace(to_mel(np.array(low)), to_mel(np.array(high)), count + 2))
    places = np.linspace(0, rate / 2, size // 2 + 1)
    rising = (places - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - places) / np.diff(edges)[1:, None]
    bank = np.maximum(0, np.minimum(rising, falling))
    if op.get("norm", "slaney") == "slaney":
        bank = bank * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return np.asarray(bank)


_BREAK_HZ: Final = 1000.0
_BREAK_MEL: Final = 15.0
_STEP: Final = np.log(6.4) / 27.0


def _slaney_mel(hertz: Any) -> Any:
    return np.where(
        hertz < _BREAK_HZ, 3 * hertz / 200, _BREAK_MEL + np.log(np.maximum(hertz, _BREAK_HZ) / _BREAK_HZ) / _STEP
    )


def _slaney_hz(mel: Any) -> Any:
    return np.where(mel < _BREAK_MEL, 200 * mel / 3, _BREAK_HZ * np.exp(_STEP * (mel - _BREAK_MEL)))


def _htk_mel(hertz: Any) -> Any:
    return 2595.0 * np.log10(1.0 + hertz / 700.0)


def _htk_hz(mel: Any) -> Any:
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
