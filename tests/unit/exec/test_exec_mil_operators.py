"""Each operator of the CoreML interpreter gives the numbers that PyTorch gives, or those worked out beside it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from dimnode.exec.runtimes.mil_ops import OPERATORS, split

RNG = np.random.default_rng(11)


def some(*shape: int, low: float = -3.0, high: float = 3.0) -> np.ndarray:
    return RNG.uniform(low, high, shape).astype(np.float32)


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def of(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values))


X, Y, POSITIVE = some(2, 3, 4), some(2, 3, 4), some(2, 3, 4, low=0.1)
FLAT, TIES = np.array([-2.0, -0.5, 0.0, 0.5, 2.0], np.float32), np.array([[1, 3, 3], [2, 0, 0]], np.float32)
A, B = np.array([7, -7, 7, -7], np.int32), np.array([2, 2, -2, -2], np.int32)
TRUE, FALSE = np.array([True, True, False, False]), np.array([True, False, True, False])
SOUND, PICTURE = some(2, 4, 9), some(2, 4, 7, 6)
NORM = {"gamma": some(4, low=0.5), "beta": some(4), "mean": some(4), "variance": some(4, low=0.5)}
Case = tuple[str, Mapping[str, Any], Any]


def torch_norm() -> torch.Tensor:
    names = ("mean", "variance", "gamma", "beta")
    return functional.batch_norm(of(PICTURE), *(of(NORM[name]) for name in names), training=False, eps=1e-5)


def conv(x: np.ndarray, weight: np.ndarray, expected: torch.Tensor, **more: Any) -> Case:
    return "conv", {"x": x, "weight": weight, **more}, expected


W1, W2, GROUPED, BIAS = some(5, 4, 3), some(5, 4, 3, 2), some(6, 2, 3, 2), some(5)
LINEAR, LINEAR_BIAS = some(5, 4), some(5)
GAMMA, BETA = some(4), some(4)

CASES: list[Case] = [
    ("add", {"x": X, "y": Y}, X + Y),
    ("add", {"x": X, "y": Y[0, :1]}, of(X) + of(Y[0, :1])),
    ("sub", {"x": X, "y": Y}, of(X) - of(Y)),
    ("mul", {"x": X, "y": Y}, of(X) * of(Y)),
    ("real_div", {"x": X, "y": POSITIVE}, of(X) / of(POSITIVE)),
    ("floor_div", {"x": A, "y": B}, [3, -4, -4, 3]),
    ("mod", {"x": A, "y": B}, [1, 1, -1, -1]),
    ("pow", {"x": POSITIVE, "y": Y}, of(POSITIVE) ** of(Y)),
    ("maximum", {"x": X, "y": Y}, torch.maximum(of(X), of(Y))),
    ("minimum", {"x": X, "y": Y}, torch.minimum(of(X), of(Y))),
    ("equal", {"x": A, "y": B + 5}, [True, False, False, False]),
    ("not_equal", {"x": A, "y": B + 5}, [False, True, True, True]),
    ("greater", {"x": FLAT, "y": FLAT[::-1]}, [False, False, False, True, True]),
    ("greater_equal", {"x": FLAT, "y": FLAT[::-1]}, [False, False, True, True, True]),
    ("less", {"x": FLAT, "y": FLAT[::-1]}, [True, True, False, False, False]),
    ("less_equal", {"x": FLAT, "y": FLAT[::-1]}, [True, True, True, False, False]),
    ("logical_and", {"x": TRUE, "y": FALSE}, [True, False, False, False]),
    ("logical_or", {"x": TRUE, "y": FALSE}, [True, True, True, False]),
    ("logical_not", {"x": TRUE}, [False, False, True, True]),
    ("exp", {"x": X}, of(X).exp()),
    ("sqrt", {"x": POSITIVE}, of(POSITIVE).sqrt()),
    ("square", {"x": X}, of(X).square()),
    ("abs", {"x": X}, of(X).abs()),
    ("tanh", {"x": X}, of(X).tanh()),
    ("floor", {"x": X}, of(X).floor()),
    ("ceil", {"x": X}, of(X).ceil()),
    ("sign", {"x": FLAT}, [-1, -1, 0, 1, 1]),
    ("sin", {"x": X}, of(X).sin()),
    ("cos", {"x": X}, of(X).cos()),
    ("erf", {"x": X}, of(X).erf()),
    ("log", {"x": POSITIVE}, of(POSITIVE).log()),
    ("log", {"x": FLAT[2:], "epsilon": np.float32(0.5)}, of(FLAT[2:] + 0.5).log()),
    ("rsqrt", {"x": POSITIVE}, of(POSITIVE).rsqrt()),
    ("rsqrt", {"x": FLAT[2:], "epsilon": np.float32(0.25)}, of(FLAT[2:] + 0.25).rsqrt()),
    ("inverse", {"x": POSITIVE}, 1 / (of(POSITIVE) + 1e-4)),
    ("inverse", {"x": POSITIVE, "epsilon": np.float32(0)}, 1 / of(POSITIVE)),
    ("relu", {"x": X}, functional.relu(of(X))),
    ("relu6", {"x": X * 4}, functional.relu6(of(X * 4))),
    ("leaky_relu", {"x": X, "alpha": np.float32(0.1)}, functional.leaky_relu(of(X), 0.1)),
    ("sigmoid", {"x": X * 40}, torch.sigmoid(of(X * 40))),
    ("silu", {"x": X}, functional.silu(of(X))),
    ("softplus", {"x": X * 20}, functional.softplus(of(X * 20))),
    ("gelu", {"x": X}, functional.gelu(of(X))),
    ("gelu", {"x": X, "mode": "EXACT"}, functional.gelu(of(X))),
    ("gelu", {"x": X, "mode": "TANH_APPROXIMATION"}, functional.gelu(of(X), approximate="tanh")),
    ("gelu", {"x": X, "mode": "SIGMOID_APPROXIMATION"}, of(X) * torch.sigmoid(1.702 * of(X))),
    ("clip", {"x": X, "alpha": np.float32(-1), "beta": np.float32(2)}, of(X).clamp(-1, 2)),
    ("softmax", {"x": X * 50}, functional.softmax(of(X * 50), -1)),
    ("softmax", {"x": X, "axis": whole(1)}, functional.softmax(of(X), 1)),
    ("layer_norm", {"x": X, "axes": whole(-1)}, functional.layer_norm(of(X), (4,))),
    (
        "layer_norm",
        {"x": X, "axes": whole(2), "gamma": GAMMA, "beta": BETA, "epsilon": np.float32(0.1)},
        functional.layer_norm(of(X), (4,), of(GAMMA), of(BETA), 0.1),
    ),
    ("batch_norm", {"x": PICTURE, **NORM}, torch_norm()),
    (
        "batch_norm",
        {"x": PICTURE, "mean": NORM["mean"], "variance": NORM["variance"]},
        functional.batch_norm(of(PICTURE), of(NORM["mean"]), of(NORM["variance"]), eps=1e-5),
    ),
    ("linear", {"x": X, "weight": LINEAR, "bias": LINEAR_BIAS}, functional.linear(of(X), of(LINEAR), of(LINEAR_BIAS))),
    ("linear", {"x": X, "weight": LINEAR}, functional.linear(of(X), of(LINEAR))),
    ("matmul", {"x": X, "y": Y, "transpose_y": True}, of(X) @ of(Y).mT),
    ("matmul", {"x": X, "y": Y, "transpose_x": np.array(True)}, of(X).mT @ of(Y)),
    conv(SOUND, W1, functional.conv1d(of(SOUND), of(W1), of(BIAS)), bias=BIAS),
    conv(SOUND, W1, functional.conv1d(of(SOUND), of(W1), stride=2, dilation=2), strides=whole(2), dilations=whole(2)),
    conv(PICTURE, W2, functional.conv2d(of(PICTURE), of(W2), padding=(1, 2)), pad_type="custom", pad=whole(1, 1, 2, 2)),
    conv(PICTURE, GROUPED, functional.conv2d(of(PICTURE), of(GROUPED), groups=2), groups=whole(2)),
    conv(PICTURE, W2, functional.conv2d(functional.pad(of(PICTURE), (0, 1, 1, 1)), of(W2)), pad_type="same"),
    conv(PICTURE, W2, functional.conv2d(functional.pad(of(PICTURE), (1, 0, 1, 1)), of(W2)), pad_type="same_lower"),
    conv(
        PICTURE,
        W2,
        functional.conv2d(functional.pad(of(PICTURE), (0, 0, 1, 1)), of(W2), stride=2),
        pad_type="same",
        strides=whole(2, 2),
    ),
    (
        "max_pool",
        {"x": PICTURE, "kernel_sizes": whole(3, 2), "strides": whole(2, 1)},
        functional.max_pool2d(of(PICTURE), (3, 2), (2, 1)),
    ),
    (
        "max_pool",
        {"x": SOUND, "kernel_sizes": whole(3), "pad_type": "custom", "pad": whole(1, 1)},
        functional.max_pool1d(of(SOUND), 3, 1, 1),
    ),
    (
        "avg_pool",
        {"x": PICTURE, "kernel_sizes": whole(2, 2), "strides": whole(2, 2)},
        functional.avg_pool2d(of(PICTURE), 2),
    ),
    (
        "avg_pool",
        {"x": SOUND, "kernel_sizes": whole(3), "pad_type": "custom", "pad": whole(1, 1)},
        functional.avg_pool1d(of(SOUND), 3, 1, 1),
    ),
    (
        "avg_pool",
        {
            "x": SOUND,
            "kernel_sizes": whole(3),
            "pad_type": "custom",
            "pad": whole(1, 1),
            "exclude_padding_from_average": True,
        },
        functional.avg_pool1d(of(SOUND), 3, 1, 1, count_include_pad=False),
    ),
    (
        "pad",
        {"x": X, "pad": whole(1, 2, 0, 3), "constant_val": np.float32(7)},
        functional.pad(of(X), (0, 3, 1, 2), value=7),
    ),
    ("pad", {"x": X, "pad": whole(0, 0, 1, 2), "mode": "reflect"}, functional.pad(of(X), (1, 2), "reflect")),
    ("gather", {"x": X, "indices": whole(2, 0, -1), "axis": whole(1)}, X[:, [2, 0, 2]]),
    ("gather", {"x": X, "indices": np.array([[0, 1]], np.int32)}, X[None, [0, 1]]),
    ("slice_by_index", {"x": X, "begin": whole(0, 1, -3), "end": whole(2, 3, -1)}, X[0:2, 1:3, -3:-1]),
    (
        "slice_by_index",
        {
            "x": X,
            "begin": whole(1, 0, 0),
            "end": whole(0, 0, 0),
            "stride": whole(1, 1, 2),
            "begin_mask": whole(0, 1, 1),
            "end_mask": whole(0, 1, 1),
            "squeeze_mask": whole(1, 0, 0),
        },
        X[1, :, ::2],
    ),
    (
        "slice_by_index",
        {"x": X, "begin": whole(0, 2, 0), "end": whole(2, 0, 4), "stride": whole(1, -1, 1)},
        X[0:2, 2:0:-1, 0:4],
    ),
    ("slice_by_size", {"x": X, "begin": whole(0, 1, 2), "size": whole(2, 1, -1)}, X[:, 1:2, 2:]),
    ("split", {"x": X, "axis": whole(2), "num_splits": whole(2)}, torch.split(of(X), 2, 2)),
    ("split", {"x": X, "axis": whole(2), "split_sizes": whole(1, 3)}, torch.split(of(X), [1, 3], 2)),
    ("reshape", {"x": X, "shape": whole(4, -1)}, X.reshape(4, 6)),
    ("reshape", {"x": X, "shape": whole(0, -1, 2)}, X.reshape(2, 6, 2)),
    ("transpose", {"x": X, "perm": whole(2, 0, 1)}, of(X).permute(2, 0, 1)),
    ("expand_dims", {"x": X, "axes": whole(0, -1)}, X[None, ..., None]),
    ("squeeze", {"x": X[:, :1], "axes": whole(1)}, X[:, 0]),
    ("squeeze", {"x": X[:1, :1]}, X[0, 0]),
    ("concat", {"values": [X, Y[:, :1]], "axis": whole(1)}, torch.cat([of(X), of(Y[:, :1])], 1)),
    ("stack", {"values": [X, Y], "axis": whole(-1)}, torch.stack([of(X), of(Y)], -1)),
    ("tile", {"x": X, "reps": whole(1, 2, 3)}, of(X).tile(1, 2, 3)),
    ("fill", {"shape": whole(2, 3), "value": np.float32(1.5)}, torch.full((2, 3), 1.5)),
    ("fill", {"shape": whole(2)}, [0.0, 0.0]),
    ("shape", {"x": X}, [2, 3, 4]),
    ("select", {"cond": X > 0, "a": X, "b": Y}, torch.where(of(X > 0), of(X), of(Y))),
    ("cumsum", {"x": X, "axis": whole(1)}, of(X).cumsum(1)),
    ("identity", {"x": X}, X),
    ("cast", {"x": X, "dtype": "fp16"}, X),
    ("reduce_sum", {"x": X, "axes": whole(0, 2)}, of(X).sum((0, 2))),
    ("reduce_sum", {"x": X}, of(X).sum()),
    ("reduce_mean", {"x": X, "axes": whole(1), "keep_dims": True}, of(X).mean(1, keepdim=True)),
    ("reduce_max", {"x": X, "axes": whole(-1)}, of(X).amax(-1)),
    ("reduce_min", {"x": X, "axes": whole(-1)}, of(X).amin(-1)),
    ("reduce_l2_norm", {"x": X, "axes": whole(1)}, torch.linalg.vector_norm(of(X), dim=1)),
    ("reduce_sum_square", {"x": X, "axes": whole(1)}, of(X).square().sum(1)),
    ("reduce_argmax", {"x": TIES}, [1, 0]),
    ("reduce_argmin", {"x": TIES, "axis": whole(1), "keep_dims": True}, [[0], [1]]),
    (
        "constexpr_affine_dequantize",
        {
            "quantized_data": np.array([[0, 255], [3, 7]], np.uint8),
            "axis": whole(0),
            "scale": np.array([0.5, 2.0], np.float32),
            "zero_point": np.array([128, 1], np.uint8),
        },
        [[-64.0, 63.5], [4.0, 12.0]],
    ),
    (
        "constexpr_affine_dequantize",
        {
            "quantized_data": np.array([-128, 127], np.int8),
            "axis": whole(0),
            "scale": np.float32(0.1),
            "zero_point": np.int8(0),
        },
        [-12.8, 12.7],
    ),
]
REFUSED: list[tuple[str, Mapping[str, Any]]] = [
    ("gather", {"x": X, "indices": whole(4), "axis": whole(2)}),
    ("gather", {"x": X, "indices": whole(-5), "axis": whole(2)}),
    ("gather", {"x": X, "indices": np.array([[0], [1]], np.int32), "axis": whole(1), "batch_dims": whole(1)}),
    ("max_pool", {"x": SOUND, "kernel_sizes": whole(2), "ceil_mode": True}),
    ("pad", {"x": X, "pad": whole(1, 1), "mode": "replicate"}),
    ("concat", {"values": [X, Y], "axis": whole(0), "interleave": True}),
    ("cumsum", {"x": X, "reverse": True}),
    ("cumsum", {"x": X, "exclusive": True}),
]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"), CASES, ids=[f"{n}-{place}" for place, (n, *_) in enumerate(CASES)]
)
def test_an_operator_gives_the_numbers_of_its_definition(
    name: str, arguments: Mapping[str, Any], expected: Any
) -> None:
    found = split(arguments) if name == "split" else [OPERATORS[name](arguments)]
    wanted = list(expected) if name == "split" else [expected]
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        values = np.asarray(theirs)
        assert ours.shape == values.shape
        np.testing.assert_allclose(ours.astype(np.float64), values.astype(np.float64), rtol=2e-5, atol=2e-6)


def test_every_operator_has_a_case() -> None:
    assert {name for name, *_ in CASES} == {*OPERATORS, "split"}


@pytest.mark.parametrize(("name", "arguments"), REFUSED, ids=[f"{n}-{place}" for place, (n, _) in enumerate(REFUSED)])
def test_what_an_operator_does_not_do_it_does_not_guess(name: str, arguments: Mapping[str, Any]) -> None:
    with pytest.raises((NotImplementedError, IndexError)):
        OPERATORS[name](arguments)
