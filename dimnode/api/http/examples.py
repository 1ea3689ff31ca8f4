"""Examples of the OpenAPI document: what a client may copy, and what it may expect.

Rule: every one is run against a door, or checked against its shape, in a test; a page that shows what does not work is
worse than none. Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from dimnode.records.ids import BLOB_PREFIX, RECORD_PREFIX, cid_text


def _record(words: str) -> str:
    return cid_text(RECORD_PREFIX + sha256(words.encode()).digest())


JOB: Final = _record("an example: job")
VERDICT: Final = _record("an example: verdict")
MODEL: Final = _record("an example: model")
BLOB: Final = cid_text(BLOB_PREFIX + sha256(b"an example: blob").digest())
PEER: Final = "12D3KooWGjua2ZxUk7prvUQog9rw11ZzzrERLBFkbFeVxz3vA7DG"
_AT_MS: Final = 1_790_000_000_000

PARAMETERS: Final[Mapping[str, tuple[str, str]]] = {
    "job": ("The job's id.", JOB),
    "job_id": ("The job's id.", JOB),
    "verdict": ("The id of a verdict.", VERDICT),
    "blob": ("The id of a blob.", BLOB),
    "model": ("A name, name:version or id.", "triage"),
    "peer": ("A peer's id or name.", PEER),
    "publisher": ("All that one peer publishes, by its index: its id, the last letters of it, or its name.", ""),
    "wait": ("Seconds to wait for the job's end.", ""),
    "most": ("How many at most.", ""),
    "before_ms": ("Only what is older than this: milliseconds since 1970.", ""),
    "after": ("Only events after this id.", ""),
    "idempotency-key": ("1 to 255 plain letters: with the same body the same job, also after a restart.", ""),
    "last-event-id": ("The last event that was seen; what comes then is sent.", ""),
}
"""By the parameter's name: words, where the route has none of its own, and an example of what cannot be left out."""

REQUESTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "JobIn": {
        "one step": {"tasks": [{"model": "triage"}], "input": {"x": [[17.99, 10.38], [13.54, 14.36]]}},
        "two models vote": {
            "pattern": "comparative",
            "tasks": [{"model": "triage"}, {"model": "triage:1.0.0"}],
            "rule": {"method": "majority_vote"},
            "input": {"x": [[17.99, 10.38]]},
            "priority": "high",
        },
        "each step by two peers that must agree": {
            "tasks": [{"model": "triage"}],
            "input": {"x": [[17.99, 10.38]]},
            "tier": "quorum",
            "quorum": {"n": 2, "k": 2},
            "deadline_seconds": 60,
        },
    },
    "ModelIn": {
        "an uploaded file": {"blob": BLOB, "name": "triage", "version": "1.1.0", "licence": "Apache-2.0"},
        "a graph with its tokenizer": {
            "files": [{"path": "model.onnx", "blob": BLOB}, {"path": "tokenizer.json", "blob": BLOB}],
            "name": "encoder",
            "inputs": [["ids", "int64", [-1, -1]]],
            "outputs": [["y", "float32", [-1, 384]]],
            "pre": [
                {"op": "input", "name": "text", "kind": "text"},
                {"op": "tokenise", "name": "text", "into": "ids", "file": "tokenizer.json", "max_tokens": 256},
            ],
        },
    },
    "PullIn": {"from whoever has it": {}, "from a neighbour": {"peers": [PEER]}},
    "GrantIn": {"for a while": {"peer": PEER, "operations": ["infer"], "expires_ms": _AT_MS}},
    "RevokeIn": {"all that it has": {"peer": PEER, "reason": "the study has ended"}},
    "WithdrawIn": {"for a better one": {"reason": "a label was wrong", "replacement": "triage:1.1.0"}},
    "EmbeddingsIn": {
        "two texts": {"model": "minilm", "input": ["That is a happy person", "It rains"]},
        "tokens": {"model": "minilm", "input": [101, 2009, 15811, 102], "encoding_format": "base64"},
    },
    "SubmitIn": {
        "one step": {"pattern": "chained", "config": {"modelId": "triage"}, "inputData": [[17.99, 10.38]]},
        "a vote": {
            "pattern": "comparative",
            "config": {"modelIds": ["triage", "triage:1.0.0"], "consensus": {"method": "majority_vote"}},
            "inputData": {"x": [[17.99, 10.38]]},
            "priority": "high",
        },
        "counts over the data of two nodes": {
            "pattern": "collaborative",
            "config": {
                "modelId": "classifier-mlp",
                "nodes": ["alba", "brio"],
                "dataset": "patients",
                "aggregation": {"method": "federated_averaging"},
            },
        },
    },
}
"""By the name of the body's shape."""

_TENSOR: Final = {"name": "label", "dtype": "int64", "shape": [1], "values": [1]}
_OUTPUT: Final = {"blob": BLOB, "bytes": 42, "tensors": [_TENSOR], "predicted": ["malignant"]}
_EVENT: Final = {"at_ms": _AT_MS, "task": 0, "epoch": 0, "peer": PEER, "text": ""}
_EVENTS: Final = [{"id": 1, "what": "submitted"} | _EVENT, {"id": 2, "what": "leased"} | _EVENT]
_CLASSIC: Final = {"jobId": JOB, "status": "completed", "pattern": "chained", "code": "", "reason": ""}
_OPENAI_MODEL: Final = {"id": "minilm:1.0.0", "object": "model", "created": 1_790_000_000, "owned_by": "…Vxz3vA7DG"}
_MODEL: Final = {
    "model": MODEL,
    "name": "triage:1.0.0",
    "publisher": PEER,
    "format": "onnx",
    "origin": "trained",
    "access": "public",
    "allowed": True,
    "mine": False,
    "licence": "Apache-2.0",
    "summary": "an example",
    "labels": ["benign", "malignant"],
    "inputs": [["x", "float32", [-1, 2]]],
    "outputs": [["y", "int64", [-1]]],
    "takes": [{"name": "text", "kind": "text", "columns": [], "dtype": "float64", "shape": []}],
    "texts": ["word"],
    "bytes": 2048,
    "here": False,
    "peers": [PEER],
}
_FILE: Final = {"path": "model.onnx", "root": BLOB, "bytes": 2048}
_GRANT: Final = {"peer": PEER, "operations": ["infer"], "expires_ms": _AT_MS, "terms": ""}
_SHOWN: Final = _MODEL | {
    "version": "1.0.0",
    "at_ms": _AT_MS,
    "profile": "unixfs-v1-2025",
    "files": [_FILE | {"role": "model"}],
    "may": {"infer": {"allowed": True, "code": "", "why": "it is public"}},
    "price": {"unit": "row", "micro": 5, "currency": "EUR"},
    "previous": "",
    "lineage": [["finetuned", MODEL]],
    "architecture": "",
    "dtype": "float32",
    "quantisation": "",
    "memory_bytes": 0,
    "max_batch": 0,
    "pre": [{"op": "input", "name": "text", "kind": "text"}],
    "post": [],
    "withdrawn": None,
    "replacement": "",
    "newer": ["triage:1.1.0"],
    "grants": [_GRANT | {"revoked": False}],
}
_PEER: Final = {
    "peer": PEER,
    "name": "brio",
    "linked": True,
    "path": "direct",
    "rtt_ms": 0.8,
    "agent": "dimnode/0.1.0",
    "models": ["triage:1.0.0"],
    "slots": 10,
    "free_slots": 9,
    "load_percent": 12.5,
    "sandbox": "landlock+seccomp+rlimits+netns+nocaps",
    "heard_seconds_ago": 1.5,
}
_STANDING: Final = {
    "peer": PEER,
    "name": "brio",
    "context": "infer",
    "mean": 0.9,
    "events": 8,
    "barred_until_ms": None,
}
_WHY: Final = {"at_ms": _AT_MS, "good": True, "kind": "agreed", "weight": 1.0, "record": VERDICT}

BODIES: Final[Mapping[str, Any]] = {
    "JobOut": {
        "job": JOB,
        "status": "ok",
        "verdict": VERDICT,
        "outputs": [_OUTPUT],
        "receipt": f"/dim/v1/jobs/{JOB}/receipt",
        "events": f"/dim/v1/jobs/{JOB}/events",
    },
    "JobsOut": {
        "jobs": [
            {"job": JOB, "label": "", "pattern": "chained", "tier": "signed", "at_ms": _AT_MS, "status": "ok"},
        ],
        "before_ms": None,
    },
    "PlanOut": {
        "pattern": "chained",
        "tier": "signed",
        "cost_factor": 1.0,
        "residual_risk": "the executor may lie; its signature says who did",
        "steps": [{"op": "infer", "model": "triage:1.0.0", "cabinet": "", "peers": [PEER]}],
        "runnable": True,
    },
    "EventsOut": {"events": _EVENTS, "last": 2},
    "CancelOut": {"job": JOB, "cancelling": True},
    "BlobOut": {"blob": BLOB, "bytes": 42},
    "AddedOut": {"model": MODEL, "name": "triage:1.1.0", "access": "public"},
    "ModelOut": _MODEL,
    "ModelsOut": {"models": [_MODEL]},
    "ModelShown": _SHOWN,
    "PulledOut": {"model": MODEL, "name": "triage:1.0.0", "bytes": 2048},
    "CheckedOut": {"model": MODEL, "name": "triage:1.0.0", "holds": True, "files": [_FILE | {"state": "holds"}]},
    "GrantedOut": _GRANT | {"grant": VERDICT, "name": "triage:1.0.0"},
    "RevokedOut": {"name": "triage:1.0.0", "peer": PEER, "revoked": [VERDICT]},
    "WithdrawnOut": {"model": MODEL, "name": "triage:1.0.0", "withdrawal": VERDICT},
    "CabinetsOut": {
        "cabinets": [{"name": "patients", "peer": "self", "columns": ["age", "label"], "operations": ["evaluate"]}]
    },
    "PeersOut": {"me": PEER, "peers": [_PEER]},
    "StandingOut": {"standing": [_STANDING]},
    "WhyOut": {
        "peer": PEER,
        "contexts": [
            {"context": "infer", "alpha": 9.0, "beta": 1.0, "mean": 0.9, "barred_until_ms": None, "events": [_WHY]}
        ],
    },
    "StatusOut": {
        "peer": PEER,
        "name": "alba",
        "version": "dimnode/0.1.0",
        "addresses": [f"/ip4/127.0.0.1/tcp/4710/p2p/{PEER}"],
        "up_seconds": 12.5,
        "peers_linked": 1,
        "peers_known": 1,
        "jobs_open": 0,
        "tasks_held": 0,
        "tasks_queued": 0,
        "tasks_running": 0,
        "workers": 2,
        "models": 1,
        "cabinets": 0,
        "rss_bytes": 90_000_000,
        "loop_late_p99_ms": 0.4,
    },
    "HealthOut": {"ok": True},
    "ReadyOut": {"ready": True, "swarm_joined": True, "workers_ready": True, "disk_ok": True},
    "OpenAiModel": _OPENAI_MODEL,
    "OpenAiModels": {"object": "list", "data": [_OPENAI_MODEL]},
    "EmbeddingsOut": {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, -0.2, 0.3]}],
        "model": "minilm:1.0.0",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    },
    "JobStatusOut": _CLASSIC,
    "JobResultOut": _CLASSIC | {"outputs": [_OUTPUT], "receipt": f"/dim/v1/jobs/{JOB}/receipt"},
}
"""By the name of the answer's shape."""

STREAM: Final = (
    "id: 1\nevent: submitted\n"
    f'data: {{"id":1,"at_ms":{_AT_MS},"what":"submitted","task":0,"epoch":0,"peer":"{PEER}","text":""}}\n\n'
)
"""One server-sent event."""

ERROR_WORDS: Final[Mapping[int, tuple[str, str, str]]] = {
    400: ("E-http-13", "body.tasks: Field required", "docs/http.md, or /docs on this node"),
    401: ("E-http-01", "a valid key is needed: no key was given", "dim keys new, then Authorization: Bearer KEY"),
    403: (
        "E-http-02",
        "this key may not do that: it lacks the scope submit: it has: read",
        "dim keys new --scope submit",
    ),
    404: ("E-job-13", "no job 'x'", "GET /dim/v1/jobs"),
    409: ("E-job-12", "this job has no verdict yet", "GET /dim/v1/jobs/JOB"),
    413: ("E-http-06", "the body is too large: at most 16777216 bytes", "give fewer rows at a time"),
    415: ("E-http-05", "bodies are application/json, not text/html", ""),
    416: ("E-http-18", "the upload has 42 bytes and none from there on", "a Range within it"),
    429: ("E-http-07", "this key may ask 6000 times a minute", "wait, or dim keys new --per-minute N"),
    500: ("E-http-99", "a bug in dimnode", "report the lines in the node's log"),
    503: ("E-http-12", "this node answers too many requests now", "try again"),
}
"""By status: code, message and hint of one error that has it."""
