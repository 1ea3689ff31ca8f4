"""Each word of transforms/1 beside an independent statement of what it is: SciPy, Pillow, or the formula by hand."""

import io
import struct
import sys
import wave
from dataclasses import replace

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from dimnode.errors import RunFailed
from dimnode.exec.batching import batch_kind
from dimnode.exec.mapping import Declared
from dimnode.exec.orders import Facts, ModelOrder, Order
from dimnode.exec.transforms import after, arrays, images, sounds, texts
from dimnode.exec.transforms.program import compile_program, constant, run_program
from dimnode.exec.transforms.sources import Inputs, read_inputs
from dimnode.exec.transforms.values import Each, Shared, Stacked, each_array, items_of, stacked
from dimnode.records.items import item_tensors
from dimnode.records.tensors import Tensor, encode_tensors
from dimnode.records.transforms import sources_of

X = {"name": "x"}


def does(op, array, lead=0):
    module = after if after.knows(op["op"]) else arrays
    return module.change_of(op)(np.asarray(array), lead)


def code_of(call, *arguments):
    with pytest.raises(RunFailed) as caught:
        call(*arguments)
    return caught.value.complaint.code


# ---- arrays


def test_scale_is_torchvisions_to_tensor_for_every_byte():
    every = np.arange(256, dtype=np.uint8)
    assert np.array_equal(does({"op": "scale", "multiply": 1, "divide": 255}, every), every.astype(np.float32) / 255)


def test_normalise_is_within_one_rounding_of_float32_arithmetic():
    picture = np.random.default_rng(1).random((4, 5, 3), dtype=np.float32)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    op = {"op": "normalise", "mean_nano": [round(m * 1e9) for m in mean], "std_nano": [round(s * 1e9) for s in std]}
    expected = (picture - np.float32(mean)) / np.float32(std)
    np.testing.assert_allclose(does(op, picture), expected, rtol=3e-6, atol=1e-6)
    assert does(op, picture).dtype == np.float32
    assert does(op, picture.astype(np.float64)).dtype == np.float64


@pytest.mark.parametrize(
    ("op", "given", "expected"),
    [
        ({"op": "cast", "dtype": "int32"}, [1.0, 2.0], np.array([1, 2], np.int32)),
        ({"op": "clip", "low_nano": 0, "high_nano": 10**9}, [-1.0, 0.5, 2.0], np.array([0, 0.5, 1])),
        ({"op": "reshape", "shape": [-1, 2]}, [1, 2, 3, 4], np.array([[1, 2], [3, 4]])),
        ({"op": "reshape", "shape": []}, [5], np.array(5)),
        ({"op": "expand", "axis": 0}, [1, 2], np.array([[1, 2]])),
        ({"op": "expand", "axis": -1}, [1, 2], np.array([[1], [2]])),
        ({"op": "transpose", "axes": [1, 0]}, [[1, 2], [3, 4]], np.array([[1, 3], [2, 4]])),
        ({"op": "reverse", "axis": 0}, [1, 2, 3], np.array([3, 2, 1])),
        ({"op": "pad", "axis": 0, "size": 4, "value": 9}, [1, 2], np.array([1, 2, 9, 9])),
        ({"op": "pad", "axis": 0, "size": 4, "value": 9, "side": "begin"}, [1, 2], np.array([9, 9, 1, 2])),
        ({"op": "truncate", "axis": 0, "size": 2}, [1, 2, 3], np.array([1, 2])),
        ({"op": "truncate", "axis": 0, "size": 2, "keep": "end"}, [1, 2, 3], np.array([2, 3])),
        ({"op": "truncate", "axis": 0, "size": 5, "keep": "end"}, [1, 2, 3], np.array([1, 2, 3])),
        ({"op": "slice", "axis": 0, "start": 1, "stop": 3}, [1, 2, 3], np.array([2, 3])),
        ({"op": "select", "axis": 0, "places": [2, 0]}, [1, 2, 3], np.array([3, 1])),
        ({"op": "sum", "axis": 0}, [1, 2, 3], np.array(6)),
        ({"op": "mean", "axis": -1}, [1.0, 2.0], np.array(1.5)),
        ({"op": "l2_normalise"}, [3.0, 4.0], np.array([0.6, 0.8])),
        ({"op": "l2_normalise"}, [0.0, 0.0], np.array([0.0, 0.0])),
        ({"op": "argmax"}, [1.0, 3.0, 3.0], np.array(1)),
        ({"op": "threshold", "at_nano": 5 * 10**8}, [0.4, 0.5], np.array([0, 1], np.uint8)),
        ({"op": "threshold", "at_nano": 5 * 10**8}, 0.7, np.array(1, np.uint8)),
        ({"op": "dequantise", "scale_nano": 5 * 10**8, "zero": 2}, np.array([2, 4], np.int8), np.array([0.0, 1.0])),
        ({"op": "copy"}, [1], np.array([1])),
    ],
)
def test_a_word_does_what_its_page_says(op, given, expected):
    found = does(op, given)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected.astype(found.dtype))
    if expected.dtype.kind in "iu" and op["op"] != "clip":
        assert found.dtype.kind in "iu"


@pytest.mark.parametrize(
    ("op", "given"),
    [
        ({"op": "cast", "dtype": "int32"}, [1.5]),
        ({"op": "cast", "dtype": "uint8"}, [300]),
        ({"op": "normalise", "mean_nano": [1, 2], "std_nano": [1, 2]}, [1.0, 2.0, 3.0]),
        ({"op": "reshape", "shape": [3]}, [1, 2]),
        ({"op": "reshape", "shape": [-1, -1]}, [1, 2]),
        ({"op": "reshape", "shape": [-1, 0]}, [1, 2]),
        ({"op": "expand", "axis": 5}, [1]),
        ({"op": "transpose", "axes": [0]}, [[1]]),
        ({"op": "reverse", "axis": 1}, [1]),
        ({"op": "pad", "axis": 0, "size": 1, "value": 0}, [1, 2]),
        ({"op": "pad", "axis": 0, "size": 3, "value": 300}, np.array([1], np.uint8)),
        ({"op": "slice", "axis": 0, "start": 0, "stop": 4}, [1]),
        ({"op": "select", "axis": 0, "places": [1]}, [1]),
        ({"op": "mean", "axis": 0}, np.zeros(0)),
        ({"op": "softmax"}, np.zeros(0)),
        ({"op": "argmax"}, np.zeros(0)),
        ({"op": "argmax"}, [np.nan, 1.0]),
        ({"op": "threshold", "at_nano": 0}, [np.nan]),
    ],
)
def test_what_does_not_fit_is_a_fault_of_the_value(op, given):
    assert code_of(does, op, given) == "E-exec-100"


numbers = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=5), elements=st.floats(-99, 99, width=32)
)


@given(numbers)
def test_softmax_and_sigmoid_are_scipys(array):
    np.testing.assert_allclose(
        does({"op": "softmax"}, array), scipy.special.softmax(array.astype(float), -1), atol=1e-7
    )
    np.testing.assert_allclose(does({"op": "sigmoid"}, array), scipy.special.expit(array.astype(float)), atol=1e-7)


WORDS = [
    {"op": "softmax"},
    {"op": "sigmoid"},
    {"op": "l2_normalise"},
    {"op": "sum", "axis": 0},
    {"op": "mean", "axis": -1},
    {"op": "scale", "multiply": 3, "divide": 7, "add_nano": 5},
    {"op": "reverse", "axis": 0},
    {"op": "reshape", "shape": [-1]},
    {"op": "expand", "axis": 0},
    {"op": "expand", "axis": -1},
    {"op": "argmax", "axis": 0},
    {"op": "truncate", "axis": 0, "size": 2, "keep": "end"},
    {"op": "pad", "axis": 0, "size": 9, "value": 1},
    {"op": "resample", "from_hz": 3000, "to_hz": 2000},
]


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=5), elements=st.floats(-9, 9, width=32)),
    st.sampled_from(WORDS),
)
def test_a_stack_gives_the_same_bits_as_each_item_alone(array, op):
    change = (after if after.knows(op["op"]) else arrays).change_of(op)
    together = each_array(Stacked(array), change)
    alone = each_array(Each(tuple(array)), change)
    assert np.array_equal(stacked(together, "x"), stacked(alone, "x"))


@given(
    st.integers(1, 400),
    st.sampled_from([(16000, 8000), (8000, 16000), (44100, 16000), (22050, 16000), (1000, 48000), (16000, 16000)]),
)
@settings(max_examples=30, deadline=None)
def test_resample_is_scipys_resample_poly(count, rates):
    signal = np.random.default_rng(count).standard_normal(count)
    from math import gcd

    common = gcd(*rates)
    # Its module is loaded here, not with the file: that takes longer than all these tests.
    expected = scipy.signal.resample_poly(signal, rates[1] // common, rates[0] // common)
    np.testing.assert_allclose(arrays.resample(signal, *rates), expected, atol=1e-12)


@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.integers(0, 3)), st.data())
def test_top_k_falls_and_gives_a_tie_to_the_lower_place(array, data):
    k = data.draw(st.integers(1, array.shape[1]))
    best, places = after.top_k({"k": k}, array, 1)
    for row, values, where in zip(array, best, places, strict=True):
        expected = sorted(range(len(row)), key=lambda place: (-row[place], place))[:k]
        assert where.tolist() == expected
        assert values.tolist() == [row[place] for place in expected]


def test_mean_pool_is_sentence_transformers_mean():
    rng = np.random.default_rng(3)
    states = rng.standard_normal((2, 4, 3)).astype(np.float32)
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0]])
    found = after.mean_pool(states, mask, 1)
    np.testing.assert_allclose(found[0], states[0, :2].mean(axis=0), rtol=1e-6)
    assert not found[1].any()
    assert code_of(after.mean_pool, states, mask[:, :3], 1) == "E-exec-100"


def test_label_text_names_classes():
    assert after.label_text(np.array(1), ["no", "yes"]) == b"yes"
    assert after.label_text(np.array([1, 0]), ["no", "yes"]) == b"yes\nno"
    assert code_of(after.label_text, np.array(2), ["no", "yes"]) == "E-exec-100"
    assert code_of(after.label_text, np.array(1.0), ["no", "yes"]) == "E-exec-100"
    assert after.labels_from("a\nb ä\r\n".encode()) == ("a", "b ä")
    assert code_of(after.labels_from, b"\xff") == "E-exec-103"


def test_a_constant_is_one_number_or_as_many_as_places():
    assert constant({"dtype": "int64", "shape": [], "values": [16000]}) == 16000
    assert constant({"dtype": "float32", "shape": [2, 2], "values_nano": [500_000_000]}).tolist() == [[0.5] * 2] * 2
    assert constant({"dtype": "int8", "shape": [2], "values": [1, -1]}).tolist() == [1, -1]
    assert code_of(constant, {"dtype": "int8", "shape": [], "values": [1000]}) == "E-exec-100"


# ---- texts and bytes


def test_categories_become_places_or_are_refused_by_item():
    op = {"op": "one_hot", "name": "sex", "values": ["f", "m"]}
    assert texts.one_hot(op, ["m", "f"]).array.tolist() == [[0, 1], [1, 0]]
    assert texts.one_hot({**op, "unknown": "zeros"}, ["?"]).array.tolist() == [[0, 0]]
    assert texts.ordinal({**op, "unknown": -1}, ["m", "?"]).array.tolist() == [1, -1]
    with pytest.raises(RunFailed, match="item 2: '\\?' is none of the values of 'sex'"):
        texts.ordinal(op, ["m", "?"])


def test_a_text_is_utf8_or_refused_with_its_place():
    with pytest.raises(RunFailed, match="item 2: the text is not UTF-8 at byte 1"):
        texts.texts_of([b"fine", b"a\xff"])


def test_a_window_takes_begin_middle_and_end_and_pads_between():
    op = {"op": "bytes_window", "begin": 3, "middle": 1, "end": 2, "pad_value": 256}
    assert texts.bytes_window(op, b"abcdefg").tolist() == [97, 98, 99, 100, 102, 103]
    assert texts.bytes_window(op, b"a").tolist() == [97, 256, 256, 97, 256, 97]
    assert texts.bytes_window(op, b"").tolist() == [256] * 6
    assert code_of(texts.bytes_window, {**op, "dtype": "uint8"}, b"") == "E-exec-100"


# ---- pictures


def encoded(array, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(5).integers(0, 256, (37, 53, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_a_picture_is_its_pixels(picture, kind):
    raw = encoded(picture, kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(images.decode_image({"colour": "rgb"}, raw), picture)
    assert np.array_equal(images.decode_image({"colour": "bgr"}, raw), picture[:, :, ::-1])
    grey = images.decode_image({"colour": "grey"}, raw)
    assert grey.shape == (37, 53, 1)
    wide = picture.astype(int)
    by_hand = (19595 * wide[..., 0] + 38470 * wide[..., 1] + 7471 * wide[..., 2] + 0x8000) >> 16
    assert np.array_equal(grey[..., 0], by_hand)


def test_a_photograph_stands_upright(picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = encoded(picture, "PNG", exif=exif)
    assert np.array_equal(images.decode_image({"colour": "rgb"}, raw), np.rot90(picture, -1))
    assert np.array_equal(images.decode_image({"colour": "rgb", "orient": False}, raw), picture)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_resize_is_pillows(picture, name):
    method = Image.Resampling[name.upper()]
    expected = np.asarray(Image.fromarray(picture).resize((24, 20), method))
    assert np.array_equal(images.resize({"filter": name, "height": 20, "width": 24}, picture, 0), expected)
    assert images.resize({"filter": name, "shorter": 20}, picture, 0).shape == (20, 28, 3)
    assert images.resize({"filter": name, "longer": 20}, picture, 0).shape == (13, 20, 3)
    assert images.resize({"filter": name, "height": 2, "width": 3}, picture[:, :, :1], 0).shape == (2, 3, 1)


def test_bilinear_is_the_triangle_of_its_page(picture):
    """What docs/transforms.md says another implementation has to do, done here without Pillow."""

    def one_axis(row, size):
        scale = len(row) / size
        support = max(scale, 1.0)
        out = []
        for place in range(size):
            centre = (place + 0.5) * scale
            low, high = max(0, int(centre - support + 0.5)), min(len(row), int(centre + support + 0.5))
            weights = [max(0.0, 1 - abs((x - centre + 0.5) / support)) for x in range(low, high)]
            fixed = [int(w / sum(weights) * (1 << 22) + 0.5) for w in weights]
            total = (1 << 21) + sum(f * int(v) for f, v in zip(fixed, row[low:high], strict=True))
            out.append(min(255, max(0, total >> 22)))
        return out

    plane = picture[:, :, 0]
    across = np.array([one_axis(row, 11) for row in plane])
    both = np.array([one_axis(column, 9) for column in across.T]).T
    assert np.array_equal(images.resize({"filter": "bilinear", "height": 9, "width": 11}, picture, 0)[..., 0], both)


def test_crop_and_frame_take_the_middle(picture):
    assert np.array_equal(images.centre_crop({"height": 10, "width": 10}, picture, 0), picture[13:23, 21:31])
    even = images.centre_crop({"height": 10, "width": 10, "rounding": "half_even"}, picture, 0)
    assert np.array_equal(even, picture[14:24, 22:32])
    framed = images.pad_image({"height": 40, "width": 53, "value": 114}, picture, 0)
    assert np.array_equal(framed[1:38], picture)
    assert (framed[0] == 114).all()
    assert np.array_equal(
        images.pad_image({"height": 40, "width": 60, "value": 0, "place": "first"}, picture, 0)[:37, :53], picture
    )
    assert code_of(images.centre_crop, {"height": 99, "width": 1}, picture, 0) == "E-exec-100"
    assert code_of(images.pad_image, {"height": 1, "width": 99, "value": 0}, picture, 0) == "E-exec-100"
    assert (
        code_of(images.resize, {"filter": "nearest", "height": 1, "width": 1}, np.zeros((2, 2, 3)), 0) == "E-exec-100"
    )


def png_header(width, height):
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def test_pictures_that_are_none_or_too_large_are_refused(picture):
    raw = encoded(picture)
    refused = [
        (b"", "E-exec-95"),
        (b"GIF89a" + bytes(50), "E-exec-95"),
        (raw[:-200], "E-exec-95"),
        (raw[:20], "E-exec-95"),
        (b"\xff\xd8\xff\xe0" + bytes(20), "E-exec-95"),
        (png_header(60_000, 60_000), "E-exec-96"),
        (png_header(40_000, 2), "E-exec-96"),
        (png_header(2**31 - 1, 2**31 - 1), "E-exec-96"),
        (encoded(np.zeros((2, 2), np.uint16)), "E-exec-95"),
    ]
    for file, code in refused:
        assert code_of(images.decode_image, {"colour": "rgb"}, file) == code
    assert images.decode_image({"colour": "rgb"}, encoded(picture[:1, :1])).shape == (1, 1, 3)


# ---- sound


def wav(samples, rate=16000, channels=1):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, dtype="<i2").tobytes())
    return buffer.getvalue()


def test_sound_is_its_samples_over_2_to_the_15():
    samples = np.array([0, 1, -32768, 32767])
    assert np.array_equal(sounds.decode_audio({"rate_hz": 16000}, wav(samples)), (samples / 32768).astype(np.float32))
    both = sounds.decode_audio({"rate_hz": 16000}, wav([0, 2, 4, 6], channels=2))
    assert np.array_equal(both, np.array([1, 5], np.float32) / 32768)
    kept = sounds.decode_audio({"rate_hz": 16000, "channels": "keep"}, wav([0, 2, 4, 6], channels=2))
    assert kept.shape == (2, 2)
    assert len(sounds.decode_audio({"rate_hz": 8000}, wav(np.zeros(1001)))) == 501


def test_flac_and_float_wav_are_read():
    import soundfile

    signal = np.linspace(-0.5, 0.5, 1000)
    for kind, subtype in (("FLAC", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "PCM_24")):
        buffer = io.BytesIO()
        soundfile.write(buffer, signal, 16000, format=kind, subtype=subtype)
        found = sounds.decode_audio({"rate_hz": 16000}, buffer.getvalue())
        np.testing.assert_allclose(found, signal, atol=2e-5)


def test_sound_that_is_none_is_refused():
    import soundfile

    whole = wav(np.ones(500))
    nan, ogg = io.BytesIO(), io.BytesIO()
    soundfile.write(nan, np.array([0.0, np.nan]), 16000, format="WAV", subtype="FLOAT")
    soundfile.write(ogg, np.zeros(100), 16000, format="OGG")
    for raw in (b"", b"RIFF", whole[:30], wav([]), b"fLaC" + bytes(40), nan.getvalue(), ogg.getvalue(), bytes(100)):
        assert code_of(sounds.decode_audio, {"rate_hz": 16000}, raw) == "E-exec-97"
    with pytest.raises(RunFailed) as caught:
        sounds.decode_audio({"rate_hz": 16000}, bytes(100))
    assert caught.value.complaint.what == "the sound cannot be read: Format not recognised. (WAV or FLAC)"


def test_frames_are_silero_vads_blocks():
    samples = np.arange(1, 1201, dtype=np.float32)
    frames = sounds.frame({"size": 576, "hop": 512, "left": 64}, samples, 0)
    padded = np.concatenate([np.zeros(64, np.float32), samples, np.zeros(1536 - 1200, np.float32)])
    assert np.array_equal(frames, np.stack([padded[start : start + 576] for start in (0, 512, 1024)]))
    assert sounds.frame({"size": 576, "hop": 512, "left": 64}, samples[:512], 0).shape == (1, 576)
    assert sounds.frame({"size": 500, "hop": 500, "tail": "drop"}, samples, 0).shape == (2, 500)
    assert sounds.frame({"size": 5000, "hop": 500, "tail": "drop"}, samples, 0).shape == (0, 5000)
    assert code_of(sounds.frame, {"size": 5, "hop": 5}, np.zeros(0, np.float32), 0) == "E-exec-100"
    assert code_of(sounds.frame, {"size": 2**31 - 1, "hop": 1}, samples, 0) == "E-exec-98"


# ---- the whole


def program(pre, post, inputs, outputs, **more):
    declared = [[Declared(name, "float32", None) for name in names] for names in (inputs, outputs)]
    return compile_program(pre, post, *declared, more.pop("files", {}), **more)


def test_a_program_without_words_is_none():
    assert program([], [], ["x"], ["y"]) is None


def test_lists_that_make_no_sense_are_the_models_fault():
    assert code_of(program, [{"op": "later", "name": "x"}], [], ["x"], ["y"]) == "E-exec-90"
    assert code_of(program, [{"op": "input", "name": "z", "kind": "rows"}], [], ["x"], ["y"]) == "E-exec-90"


def test_a_model_is_called_in_parts_of_its_batch():
    pre = [{"op": "input", "name": "x", "kind": "rows", "columns": ["a", "b"]}]
    post = [{"op": "argmax", "name": "y", "into": "label"}, {"op": "label_text", "name": "label", "into": "word"}]
    made = program(pre, post, ["x"], ["y"], labels=["low", "high"], batch_max=2)
    calls = []

    def run(arrays):
        calls.append(arrays["x"].shape)
        return {"y": arrays["x"]}

    rows = np.array([[1, 2], [4, 3], [5, 6]], dtype="<f4")
    blob = encode_tensors([Tensor("x", "float32", (3, 2), rows.tobytes())])
    answer, count = run_program(made, read_inputs(sources_of(pre), (), [blob]), run)
    assert count == 3
    assert calls == [(2, 2), (1, 2)]
    assert answer["label"].tolist() == [1, 0, 1]
    assert answer["word"].items == (b"high", b"low", b"high")


def test_scan_carries_from_step_to_step_and_starts_anew_with_each_item():
    pre = [
        {"op": "input", "name": "f", "kind": "bytes"},
        {"op": "bytes_window", "name": "f", "into": "x", "begin": 3, "end": 0, "pad_value": 0},
        {"op": "expand", "name": "x", "axis": -1},
        {"op": "constant", "name": "state", "dtype": "float32", "shape": [1], "values": [0]},
        {"op": "call", "mode": "scan", "over": ["x"], "carry": [["state", "next"]]},
    ]
    made = program(pre, [], ["x", "state"], ["total", "next"])

    def run(arrays):
        total = arrays["state"] + arrays["x"][:, 0]
        return {"total": total, "next": total}

    blob = encode_tensors(item_tensors("f", [b"\1\2\3", b"\5"]))
    answer, _ = run_program(made, read_inputs(sources_of(pre), (), [blob]), run)
    assert [item.tolist() for item in answer["total"].items] == [[1, 3, 6], [5, 5, 5]]
    assert [item.tolist() for item in answer["next"].items] == [[6], [5]]


def test_bare_gives_each_item_without_an_axis_for_items():
    pre = [{"op": "input", "name": "f", "kind": "tensor"}, {"op": "call", "mode": "bare"}]
    made = program(pre, [], ["f"], ["y"])
    blob = encode_tensors([Tensor("f", "float32", (2, 2), np.arange(4, dtype="<f4").tobytes())])
    answer, _ = run_program(made, read_inputs(sources_of(pre), (), [blob]), lambda arrays: {"y": arrays["f"] + 1})
    assert [item.tolist() for item in answer["y"].items] == [[1, 2], [3, 4]]


def test_items_of_unequal_shape_are_named():
    pre = [
        {"op": "input", "name": "p", "kind": "image"},
        {"op": "decode_image", "name": "p", "into": "x", "colour": "rgb"},
    ]
    made = program(pre, [], ["x"], ["y"])
    blob = encode_tensors(
        item_tensors("p", [encoded(np.zeros((2, 2, 3), np.uint8)), encoded(np.zeros((3, 2, 3), np.uint8))])
    )
    with pytest.raises(RunFailed, match=r"item 1 has the shape \[2, 2, 3\] and item 2 \[3, 2, 3\]"):
        run_program(made, read_inputs(sources_of(pre), (), [blob]), lambda arrays: {"y": arrays["x"]})


def test_a_broken_file_among_others_is_named():
    pre = [
        {"op": "input", "name": "p", "kind": "image"},
        {"op": "decode_image", "name": "p", "into": "x", "colour": "rgb"},
    ]
    made = program(pre, [], ["x"], ["y"])
    blob = encode_tensors(item_tensors("p", [encoded(np.zeros((2, 2, 3), np.uint8)), b"nothing"]))
    with pytest.raises(RunFailed, match="item 2: the file is none of PNG"):
        run_program(made, read_inputs(sources_of(pre), (), [blob]), lambda arrays: {"y": arrays["x"]})


def test_a_model_that_mixes_items_is_refused():
    pre = [{"op": "input", "name": "x", "kind": "tensor"}]
    made = program(pre, [], ["x"], ["y"])
    blob = encode_tensors([Tensor("x", "float32", (2,), bytes(8))])
    given = read_inputs(sources_of(pre), (), [blob])
    assert code_of(run_program, made, given, lambda arrays: {"y": np.array(arrays["x"].sum())}) == "E-exec-101"
    assert code_of(run_program, made, given, lambda arrays: {"z": arrays["x"]}) == "E-exec-100"


def test_inputs_are_found_by_name_or_as_the_only_thing():
    image = sources_of([{"op": "input", "name": "p", "kind": "image"}])
    assert read_inputs(image, (), [encode_tensors(item_tensors("other", [b"abc"]))]).values["p"] == Each((b"abc",))
    rows = sources_of([{"op": "input", "name": "x", "kind": "rows", "columns": ["a"]}])
    wrong = [
        (rows, Tensor("x", "float32", (1, 2), bytes(8)), "E-exec-13"),
        (rows, Tensor("x", "float32", (1, 1), np.array([np.nan], "<f4").tobytes()), "E-exec-15"),
        (rows, Tensor("x", "float32", (0, 1), b""), "E-exec-92"),
        (image, Tensor("p", "float32", (1,), bytes(4)), "E-exec-11"),
        (
            sources_of([{"op": "input", "name": "t", "kind": "tensor", "shape": [-1, 3]}]),
            Tensor("t", "int8", (1, 2), b"ab"),
            "E-exec-13",
        ),
        (sources_of([{"op": "input", "name": "t", "kind": "tensor"}]), Tensor("t", "int8", (), b"a"), "E-exec-13"),
    ]
    for sources, tensor, code in wrong:
        assert code_of(read_inputs, sources, (), [encode_tensors([tensor])]) == code
    two = sources_of([{"op": "input", "name": "a", "kind": "bytes"}, {"op": "input", "name": "b", "kind": "bytes"}])
    uneven = encode_tensors([*item_tensors("a", [b"1"]), *item_tensors("b", [b"1", b"2"])])
    assert code_of(read_inputs, two, (), [uneven]) == "E-exec-92"
    assert code_of(read_inputs, two, (), [encode_tensors(item_tensors("a", [b"1"]))]) == "E-exec-12"


WORDY = lambda _: {"y": np.array([["a", 1]], dtype=object)}  # noqa: E731 - what ONNX gives for a text output
FEEDS_X = {"op": "copy", "name": "i", "into": "x"}


@pytest.mark.parametrize(
    ("pre", "post", "given", "run"),
    [
        ({"op": "pad_image", "name": "i", "into": "x", "height": 4, "width": 4, "value": 255}, (), "int8", None),
        (FEEDS_X, [{"op": "cast", "name": "y", "dtype": "float32"}], "float32", WORDY),
        (FEEDS_X, [{"op": "argmax", "name": "y", "into": "z"}], "float32", WORDY),
        (FEEDS_X, [{"op": "top_k", "name": "y", "into": "z", "places": "p", "k": 1}], "float32", WORDY),
    ],
)
def test_what_numpy_makes_nothing_of_is_a_fault_of_the_value_and_no_workers_end(pre, post, given, run):
    lists = [{"op": "input", "name": "i", "kind": "tensor"}, pre], post
    program = compile_program(*lists, [Declared("x", "float32", None)], [Declared("y", "", None)], {})
    inputs = Inputs({"i": Stacked(np.ones((1, 2, 2, 3), given))}, 1)
    with pytest.raises(RunFailed, match=(post or [pre])[0]["op"]) as caught:
        run_program(program, inputs, run or (lambda fed: {"y": fed["x"]}))
    assert caught.value.complaint.code == "E-exec-100"


def test_a_constant_with_no_place_and_a_shape_beyond_every_machine_is_the_models_fault():
    op = {"op": "constant", "name": "c", "dtype": "int8", "shape": [0, *[2**31 - 1] * 7], "values": [1]}
    pre = [{"op": "input", "name": "i", "kind": "tensor"}, FEEDS_X, op]
    program = compile_program(pre, [], [Declared("x", "float32", None)], [Declared("y", "float32", None)], {})
    with pytest.raises(RunFailed, match="constant"):
        run_program(program, Inputs({"i": Stacked(np.ones((1, 2)))}, 1), lambda fed: {"y": fed["x"]})


def test_a_shared_value_is_kept_as_it_is_also_of_a_model_that_is_called_bare():
    pre = [{"op": "input", "name": "i", "kind": "tensor"}, FEEDS_X]
    pre += [
        {"op": "constant", "name": "c", "dtype": "int8", "shape": [2], "values": [1]},
        {"op": "call", "mode": "bare"},
    ]
    post = [{"op": "keep", "names": ["c", "y"]}]
    program = compile_program(pre, post, [Declared("x", "float32", None)], [Declared("y", "float32", None)], {})
    answer, _ = run_program(program, Inputs({"i": Stacked(np.ones((1, 2)))}, 1), lambda fed: {"y": fed["x"]})
    assert answer["c"].tolist() == [1, 1]


def test_a_tensor_of_nothing_says_of_no_more_items_than_files_may_be():
    pre = [{"op": "input", "name": "i", "kind": "tensor"}]
    for count, code in ((4096, None), (4097, "E-exec-92"), (2**31 - 1, "E-exec-92")):
        blob = encode_tensors([Tensor("i", "float32", (count, 0), b"")])
        if code is None:
            assert read_inputs(sources_of(pre), (), (blob,)).count == count
        else:
            assert code_of(read_inputs, sources_of(pre), (), (blob,)) == code


def test_shared_values_have_no_items():
    assert stacked(Shared(np.zeros(2)), "c").shape == (2,)
    with pytest.raises(AssertionError):
        items_of(Shared(np.zeros(2)))


def test_files_and_texts_run_alone_because_two_of_them_would_become_one():
    order = Order((b"job", 1, 1), "infer", None, (), (), None, "normal", 1.0, deterministic=False)
    for kind, tensor, together in (
        ("bytes", Tensor("x", "uint8", (5,), bytes(5)), False),
        ("rows", Tensor("x", "float32", (5, 1), bytes(20)), True),
    ):
        model = ModelOrder("m", "onnx", (), Facts(pre=({"op": "input", "name": "x", "kind": kind},)))
        kind_of, _ = batch_kind(replace(order, model=model, inputs=(encode_tensors([tensor]),)))
        assert (kind_of is not None) == together


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("PIL", lambda: images.decode_image({"colour": "rgb"}, b"raw")),
        ("soundfile", lambda: sounds.decode_audio({"rate_hz": 8000}, b"raw")),
        ("tokenizers", lambda: texts.load_tokenizer(b"{}")),
    ],
)
def test_what_is_not_installed_is_said_with_the_command_that_brings_it(monkeypatch, package, call):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RunFailed, match=r"E-exec-91.*pip install 'dimnode\["):
        call()


def test_a_tokenizer_that_is_none_is_the_models_fault():
    for raw in (b"", b"{}", b"\xff", b'{"model": {"type": "WordLevel"}}'):
        assert code_of(texts.load_tokenizer, raw) == "E-exec-94"
