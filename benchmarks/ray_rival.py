"""Ray Serve's part of the HTTP benchmark: the same ONNX encoder and tokenizer behind its HTTP proxy.

Runs in the environment of `make rivals`, where dimnode is not installed:

    python benchmarks/ray_rival.py FOLDER      serves model.onnx and tokenizer.json; says its URL; ends with stdin
"""

import os
import sys

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import onnxruntime
import ray
from ray import serve
from starlette.requests import Request
from tokenizers import Tokenizer

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "."


@serve.deployment(num_replicas=2, max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.5})
class Encoder:
    """Two replicas with one thread each, as two dimnode workers have."""

    def __init__(self, folder: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options)
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.tokenizer.no_padding()

    async def __call__(self, request: Request) -> dict:
        body = await request.json()
        rows = self.tokenizer.encode_batch([body["input"]])
        ids = np.array([row.ids for row in rows], dtype=np.int64)
        mask = np.array([row.attention_mask for row in rows], dtype=np.int64)
        found = self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return {"data": [{"index": place, "embedding": row.tolist()} for place, row in enumerate(found)]}


def main() -> None:
    """Serve until the other side is done."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ.get("RAY_PORT", "8799"))})
    serve.run(Encoder.bind(os.path.abspath(FOLDER)), route_prefix="/")
    print("ready", flush=True)
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
