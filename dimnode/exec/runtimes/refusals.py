"""Which files are never opened as models, why, and what to use instead.

Rule: refused by name before a byte is read, and by the first bytes whatever the name is.
Pure: no I/O, no clock.
"""

from typing import Final

from dimnode.errors import Refused
from dimnode.exec.orders import REFUSED_FORMAT

HEAD_BYTES: Final = 64
"""As many first bytes tell a format."""
_PICKLE: Final = "a pickle runs code when it is opened"
_TO_SAFETENSORS: Final = (
    "convert a state dict of your own: python -m dimnode.exec.state_dict FILE OUT.safetensors; "
    "export a whole model or TorchScript to ONNX where it was made"
)
_ARRAYS: Final = "write your arrays with safetensors.numpy.save_file, or export the model to ONNX"
REASONS: Final = {
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), f"{_PICKLE}; {_TO_SAFETENSORS}"),
    **dict.fromkeys((".pkl", ".pickle", ".joblib", ".dill"), f"{_PICKLE}; export the model to ONNX (skl2onnx)"),
    ".pt2": "loading a .pt2 falls back to a pickle, which runs code; export it to ONNX where it was made",
    **dict.fromkeys((".ts", ".jit", ".torchscript"), "TorchScript can write files and never end; export it to ONNX"),
    **dict.fromkeys((".h5", ".hdf5", ".keras"), "Keras files can hold code (Lambda layers); export the model to ONNX"),
    **dict.fromkeys((".npy", ".npz"), f"a NumPy file can hold a pickle; {_ARRAYS}"),
    ".gguf": "GGUF is not read by this version; convert it to safetensors where it is known",
    ".mlmodel": "only .mlpackage folders are read; save it as an mlprogram with coremltools",
}


def refusal_of(path: str, head: bytes) -> str:
    """Why this file is refused, with the conversion to use; "" when it is not. `head`: its first bytes."""
    lowered = path.lower()
    for ending, reason in REASONS.items():
        if lowered.endswith(ending):
            return reason
    if head.startswith(b"PK\x03\x04"):
        return f"a zip archive as PyTorch writes it (pickle, TorchScript or .pt2); {_TO_SAFETENSORS}"
    if len(head) > 2 and head[0] == 0x80 and head[1] in range(2, 6):
        return f"{_PICKLE}; {_TO_SAFETENSORS}"
    if head.startswith(b"\x93NUMPY"):
        return REASONS[".npy"]
    if head.startswith(b"GGUF"):
        return REASONS[".gguf"]
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return REASONS[".h5"]
    return ""


def require_model_format(path: str, head: bytes) -> None:
    """Raises `Refused` E-exec-62 with the conversion to use, for a person who offers such a file."""
    if reason := refusal_of(path, head):
        why, _, instead = reason.partition("; ")
        raise Refused(REFUSED_FORMAT, f"{path} is of a format that no node runs", why, instead)
