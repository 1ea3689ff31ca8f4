"""Text for models that take it: as it is for those that declare how it becomes tokens (`pre`), and cut into tokens here
for older ones, which only name their tokenizer (`x_text`).

Rule: tokenizers are data, read by a library; nothing of a stranger's model runs here. A few are kept, by CID.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import trio

from dimnode.api.port import NodePort
from dimnode.errors import Refused
from dimnode.records.envelope import Record
from dimnode.records.items import item_tensors
from dimnode.records.manifest import Manifest
from dimnode.records.tensors import Tensor, encode_tensors
from dimnode.records.transforms import Source, sources_of

_BROKEN: Final = "its publisher has to publish it again with a tokenizer.json that works"
_KEPT_MAX: Final = 4
_TOKENS_MAX: Final = 8192
_PARTS: Final = ("normalizer", "pre_tokenizer", "post_processor")
_STEPS: Final = frozenset(
    {
        *("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Replace", "Strip"),
        *("StripAccents", "BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Whitespace"),
        *("WhitespaceSplit", "BertProcessing", "RobertaProcessing", "TemplateProcessing"),
    }
)
_SPACES: Final = {"Regex": " {2,}"}
"""The only pattern: sentence pieces have it."""
_PIECES_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Cut:
    """A batch of token ids, each row without padding."""

    rows: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """Of all rows together."""
        return sum(map(len, self.rows))

    @property
    def padded(self) -> int:
        """As many as `to_blob` writes."""
        return len(self.rows) * max(map(len, self.rows), default=0)

    def to_blob(self, pad: int = 0) -> bytes:
        """input_ids and attention_mask as tensors/1, padded to the longest row."""
        width = max(map(len, self.rows))
        ids = np.full((len(self.rows), width), pad, dtype="<i8")
        mask = np.zeros((len(self.rows), width), dtype="<i8")
        for place, row in enumerate(self.rows):
            ids[place, : len(row)] = row
            mask[place, : len(row)] = 1
        shape = ids.shape
        named = (("input_ids", ids), ("attention_mask", mask))
        return encode_tensors([Tensor(name, "int64", shape, found.tobytes()) for name, found in named])


@dataclass(frozen=True, slots=True)
class Plain:
    """Texts as they are: the executor cuts them. How many tokens they were is known afterwards."""

    name: str
    rows: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """Not known yet."""
        return 0

    @property
    def padded(self) -> int:
        """Not known yet."""
        return 0

    def to_blob(self, pad: int = 0) -> bytes:
        """tensors/1."""
        return encode_tensors(item_tensors(self.name, [text.encode() for text in self.rows]))


def takes_text(model: Record) -> bool:
    """It takes text and nothing else."""
    return Manifest.of(model).text is not None or _text_source(model) is not None


def _text_source(model: Record) -> Source | None:
    sources = sources_of(model.payload.get("pre", ()))
    return sources[0] if len(sources) == 1 and sources[0].kind == "text" else None


def _tokens_max(model: Record) -> int:
    """As many as its `pre` takes."""
    found: list[int] = [op["max_tokens"] for op in model.payload["pre"] if op["op"] == "tokenise"]
    return min(_TOKENS_MAX, *found) if found else _TOKENS_MAX


def no_tokens(cause: str = "") -> Refused:
    """The extra is missing where the tokens would be cut."""
    hint = "pip install 'dimnode[text]', then restart the node: dim stop, dim up"
    return Refused("E-http-16", "no node that has the model can cut text into tokens", cause, hint)


@dataclass(slots=True)
class _Coming:
    """A tokenizer that is being fetched for whoever asked first."""

    over: trio.Event = field(default_factory=trio.Event)
    no: Refused | None = None


class Texts:
    """Tokenizers of the models that were asked for lately."""

    def __init__(self, node: NodePort) -> None:
        self._node = node
        self._kept: OrderedDict[bytes, Any] = OrderedDict()
        self._coming: dict[bytes, _Coming] = {}

    async def cut(self, model: Record, texts: Sequence[str] | Sequence[Sequence[int]]) -> Cut | Plain:
        """Tokens of each text, at most as many as the model takes. Raises `Refused` for a model that takes no text.

        Tokens that are given go past a model's `pre`.
        """
        if (source := _text_source(model)) is not None:
            if texts and isinstance(texts[0], str):
                return Plain(source.name, tuple(map(str, texts)))
            most = _tokens_max(model)
            return Cut(tuple(tuple(int(token) for token in row)[:most] for row in texts))
        manifest = Manifest.of(model)
        if manifest.text is None:
            what = f"the model {manifest.title} takes no text"
            raise Refused("E-http-15", what, "", "GET /v1/models lists those that do")
        most = max(1, min(manifest.text.max_tokens, _TOKENS_MAX))  # a stranger's manifest
        if texts and not isinstance(texts[0], str):
            return Cut(tuple(tuple(int(token) for token in row)[:most] for row in texts))
        tokenizer = await self._tokenizer(model, manifest.text.tokenizer)
        found = await trio.to_thread.run_sync(_tamed, tokenizer.encode_batch, list(texts))
        return Cut(tuple(tuple(_shortened(row.ids, most)) for row in found))

    async def _tokenizer(self, model: Record, name: str) -> Any:
        """Fetched once, however many ask at once: a peer refuses a crowd that wants the same file of it."""
        while model.id not in self._kept:
            coming = self._coming.get(model.id)
            if coming is None:
                return await self._fetch(model, name)
            await coming.over.wait()
            if coming.no is not None:
                raise coming.no
        self._kept.move_to_end(model.id)
        return self._kept[model.id]

    async def _fetch(self, model: Record, name: str) -> Any:
        coming = self._coming[model.id] = _Coming()
        try:
            return await self._load(model, name)
        except Refused as no:
            coming.no = no
            raise
        finally:
            del self._coming[model.id]
            coming.over.set()

    async def _load(self, model: Record, name: str) -> Any:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise no_tokens() from None
        raw = await self._node.model_file(model, name)
        await trio.to_thread.run_sync(require_modest, raw)
        found = await trio.to_thread.run_sync(_tamed, Tokenizer.from_buffer, raw)
        found.no_padding()
        found.no_truncation()
        if len(self._kept) >= _KEPT_MAX:
            self._kept.popitem(last=False)
        self._kept[model.id] = found
        return found


def _tamed(call: Callable[[Any], Any], argument: Any) -> Any:
    """The library raises bare `Exception`, and its panics are not even that: one of a stranger's would end the node."""
    try:
        return call(argument)
    except BaseException as fault:  # noqa: BLE001 boundary: a panic of the library's; nobody cancels in this thread
        raise Refused("E-models-04", "the model's tokenizer cannot be used", str(fault)[:200], _BROKEN) from None


def require_modest(raw: bytes) -> None:
    """Raises `Refused` E-models-04 for a tokenizer that could make more of a text than its words.

    Its steps are a program: forty that each double a letter are 3 kB, and take all memory of the node, whose process
    this is; a pattern may never end. A worker, which has bounds, carries out any of them (`pre`).
    """
    try:
        said = json.loads(raw)
        strange = [word for part in _PARTS for word in _strange_steps(said.get(part))]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        cause = "it is no tokenizer.json"
        raise Refused("E-models-04", "the model's tokenizer cannot be read", cause, _BROKEN) from None
    if strange:
        cause = f"in this process it may not have: {strange[0][:80]}"
        hint = "its publisher can publish it again with `pre`, so that a worker cuts the text"
        raise Refused("E-models-04", "the model's tokenizer is not used here", cause, hint)


def _strange_steps(part: Any) -> list[str]:
    """Of one part: each step is one of those that are known, once; of a sequence of them each."""
    steps: list[Any] = [] if part is None else [part]
    if part is not None and part["type"] == "Sequence":
        steps = [step for key in ("normalizers", "pretokenizers", "processors") for step in part.get(key, ())]
    kinds = [step["type"] for step in steps]
    strange = [str(kind) for kind in kinds if kind not in _STEPS or kinds.count(kind) > 1]
    for step in steps:
        if step["type"] == "Replace" and (step["pattern"] != _SPACES or len(step["content"]) > 1):
            strange.append("Replace of a pattern of its own")
        elif step["type"] == "TemplateProcessing":
            ids = sum(len(token["ids"]) for token in step["special_tokens"].values())
            if max(len(step["single"]), len(step["pair"]), ids) > _PIECES_MAX:
                strange.append("TemplateProcessing of many pieces")
    return strange


def _shortened(ids: Sequence[int], most: int) -> Sequence[int]:
    """The last token closes the sentence, so it stays."""
    return ids if len(ids) <= most else [*ids[: most - 1], ids[-1]]
