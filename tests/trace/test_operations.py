"""Every function of torch that a block takes gives what torch gives."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import interpose as ip
from interpose.graph.ops import OPS
from interpose.trace.functions import NAMES

X = torch.randn(3, 8, generator=torch.manual_seed(1))
Y = torch.randn(3, 8, generator=torch.manual_seed(2))
SQUARE = torch.randn(8, 8, generator=torch.manual_seed(3))
POSITIVE = SQUARE @ SQUARE.T + 8 * torch.eye(8)
BOOL, INT = X > 0, torch.arange(24).reshape(3, 8) % 5
PICK = torch.tensor([[0, 3], [1, 2], [7, 7]])
UNARY = [
    "abs",
    "ceil",
    "cos",
    "cosh",
    "erf",
    "exp",
    "expm1",
    "floor",
    "frac",
    "isfinite",
    "isinf",
    "isnan",
    "neg",
    "reciprocal",
    "round",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "square",
    "tan",
    "tanh",
    "trunc",
    "atan",
    "relu",
    "elu",
    "gelu",
    "silu",
    "selu",
    "softplus",
    "logsigmoid",
    "leaky_relu",
    "hardtanh",
    "all",
    "any",
    "argmax",
    "argmin",
    "max",
    "mean",
    "median",
    "min",
    "norm",
    "sum",
    "std",
    "var",
    "count_nonzero",
    "amax",
    "amin",
    "std_mean",
    "var_mean",
    "vector_norm",
    "logit",
    "clone",
    "contiguous",
    "ravel",
    "flatten",
    "squeeze",
    "t",
    "diag",
    "detach",
    "float",
    "double",
    "half",
    "bfloat16",
    "long",
    "int",
    "bool",
    "adjoint",
    "nan_to_num",
    "empty_like",
    "ones_like",
    "zeros_like",
    "mode",
    "matrix_norm",
]
BINARY = [
    "add",
    "sub",
    "mul",
    "div",
    "true_divide",
    "atan2",
    "eq",
    "ge",
    "gt",
    "le",
    "lt",
    "ne",
    "maximum",
    "minimum",
    "fmod",
    "remainder",
    "floor_divide",
    "rsub",
    "xlogy",
    "expand_as",
    "reshape_as",
    "view_as",
    "type_as",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "kl_div",
    "binary_cross_entropy_with_logits",
    "cosine_similarity",
    "cdist",
]
CASES: dict[str, list[tuple[Any, ...]]] = {
    **{name: [(X,)] for name in UNARY},
    **{name: [(X, Y)] for name in BINARY},
    **{name: [(BOOL, BOOL.flip(0))] for name in ("logical_and", "logical_or", "logical_xor")},
    **{name: [(INT, INT.flip(0))] for name in ("bitwise_and", "bitwise_or", "bitwise_xor")},
    **{name: [(X, -1)] for name in ("argsort", "cummax", "cumprod", "cumsum", "logcumsumexp", "logsumexp", "softmax")},
    **{name: [(X.abs() + 0.1,)] for name in ("log", "log10", "log1p", "log2", "rsqrt", "sqrt")},
    **{name: [(SQUARE,)] for name in ("mT", "mH", "T", "trace", "tril", "triu", "qr", "svd", "diag_embed", "diagonal")},
    **{name: [(POSITIVE,)] for name in ("inverse", "pinv", "cholesky", "eigh")},
    "bitwise_not": [(BOOL,)],
    "logical_not": [(X,)],
    "cummin": [(X, 1)],
    "log_softmax": [(X, -1), (X, -1, torch.float64)],
    "addcdiv": [(X, Y, Y.abs() + 1)],
    "addcmul": [(X, Y, Y)],
    "clamp": [(X, -0.5, 0.5)],
    "lerp": [(X, Y, 0.25)],
    "pow": [(X, 2)],
    "where": [(BOOL, X, Y)],
    "kthvalue": [(X, 2)],
    "nansum": [(X, 1)],
    "prod": [(X, 1)],
    "quantile": [(X, 0.3, 1)],
    "sort": [(X, 1)],
    "topk": [(X, 2)],
    "broadcast_to": [(X, (2, 3, 8))],
    "cat": [([X, Y], 1)],
    "stack": [([X, Y], -1)],
    "chunk": [(X, 2, 1)],
    "split": [(X, 3, 1), (X, [2, 6], 1)],
    "tensor_split": [(X, 3, 1)],
    "unbind": [(X, 1)],
    "expand": [(X[:, None], 3, 4, 8)],
    "flip": [(X, (0, 1))],
    "gather": [(X, 1, PICK)],
    "getitem": [(X, (slice(1, None), [0, 2])), (X, 0), (X, ...), (X, (None, 1)), (X, [0, 2])],
    "index_add": [(X, 0, torch.tensor([0, 2]), Y[:2])],
    "index_copy": [(X, 0, torch.tensor([0, 2]), Y[:2])],
    "index_fill": [(X, 1, torch.tensor([1, 4]), 9.0)],
    "index_put": [(X, (torch.tensor([0, 1]), torch.tensor([2, 2])), torch.ones(2))],
    "index_select": [(X, 1, torch.tensor([1, 4]))],
    "masked_fill": [(X, BOOL, -9.0)],
    "masked_scatter": [(X, BOOL, Y)],
    "moveaxis": [(X, 0, 1)],
    "movedim": [(X, 0, 1)],
    "narrow": [(X, 1, 2, 3)],
    "permute": [(X, (1, 0))],
    "repeat": [(X, 2, 1)],
    "repeat_interleave": [(X, 2, 1)],
    "reshape": [(X, (4, 6))],
    "roll": [(X, 1, 1)],
    "scatter": [(X, 1, PICK, 5.0)],
    "scatter_add": [(X, 1, PICK, Y)],
    "select": [(X, 1, 3)],
    "swapaxes": [(X, 0, 1)],
    "swapdims": [(X, 0, 1)],
    "take_along_dim": [(X, PICK, 1)],
    "tile": [(X, (2, 1))],
    "transpose": [(X, 0, 1)],
    "unflatten": [(X, 1, (2, 4))],
    "unfold": [(X, 1, 3, 2)],
    "unsqueeze": [(X, 1)],
    "view": [(X, 4, 6)],
    "to": [(X, torch.float64), (X, "cpu"), (X, Y.double()), (X, torch.device("cpu"), torch.float16)],
    "baddbmm": [(SQUARE[None], SQUARE[None], SQUARE[None])],
    "addmm": [(SQUARE, SQUARE, SQUARE)],
    "bmm": [(SQUARE[None], SQUARE[None])],
    "cross": [(X[:, :3], Y[:, :3])],
    "dot": [(X[0], Y[0])],
    "einsum": [("ij,kj->ik", X, Y), ("ij,jk", X, SQUARE)],
    "inner": [(X, Y)],
    "kron": [(X, Y)],
    "matmul": [(X, SQUARE)],
    "mm": [(X, SQUARE)],
    "mv": [(SQUARE, X[0])],
    "outer": [(X[0], Y[0])],
    "solve": [(POSITIVE, SQUARE)],
    "tensordot": [(X, Y, 2)],
    "conv1d": [(X[None], torch.ones(2, 3, 3))],
    "conv2d": [(X[None, None], torch.ones(1, 1, 2, 2))],
    "cross_entropy": [(X, torch.tensor([0, 4, 2]))],
    "nll_loss": [(X, torch.tensor([0, 4, 2]))],
    "dropout": [(X, 0.5, False)],
    "embedding": [(INT, SQUARE)],
    "glu": [(X, -1)],
    "group_norm": [(X, 2)],
    "layer_norm": [(X, (8,), Y[0], Y[1])],
    "rms_norm": [(X, (8,))],
    "linear": [(X, SQUARE, Y[0])],
    "normalize": [(X, 2.0, -1)],
    "one_hot": [(INT, 6)],
    "pad": [(X, (1, 2))],
    "scaled_dot_product_attention": [(X[None], Y[None], Y[None])],
    "full_like": [(X, 3.5)],
}
SKIPPED = {"setitem", "rand_like", "randn_like"}  # writing is tested by itself; the others are random
ROUTES: list[tuple[Callable[..., Any], str]] = [
    *((function, name) for function, name in NAMES.items() if name not in SKIPPED),
    (operator.getitem, "getitem"),
    (lambda value: value.T, "T"),
    (lambda value: value.mT, "mT"),
    (lambda value: value.mH, "mH"),
]


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [found for item in value for found in tensors(item)] if isinstance(value, tuple | list) else []


def through_block(call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """What a call gives when its tensors are values of a block, and the shapes it promised."""

    given = tensors(args)
    model = ip.wrap(torch.nn.Identity())
    with model.trace(X) as t:
        inputs = [t.input(f"x{i}", value) for i, value in enumerate(given)]
        result = call(*_replaced(args, iter(inputs)))
        promised = [(value.shape, value.dtype) for value in tensors(result)]
        for value in tensors(result):
            value.save()
    return result, promised


def _replaced(value: Any, by: Any) -> Any:
    if isinstance(value, Tensor):
        return next(by)
    return type(value)(_replaced(item, by) for item in value) if isinstance(value, tuple | list) else value


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b) if not a.isnan().any() else torch.allclose(a, b, equal_nan=True)
    return type(a) is type(b) and len(a) == len(b) and all(equal(left, right) for left, right in zip(a, b, strict=True))


def test_every_operation_has_a_case() -> None:
    assert set(CASES) | SKIPPED == set(OPS)
    assert {name for _, name in ROUTES} <= set(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.filterwarnings("ignore")  # what torch says of single functions, here as outside a block
def test_an_operation_by_any_of_its_functions_is_what_torch_gives(name: str) -> None:
    for function in [function for function, known in ROUTES if known == name]:
        worked = 0
        for args in CASES[name]:
            try:
                expected = function(*args)
            except (TypeError, RuntimeError):
                continue  # this function takes other arguments; the next case is for it
            worked += 1
            result, promised = through_block(function, args)
            assert name == "empty_like" or equal(result, expected), function
            assert promised == [(value.shape, value.dtype) for value in tensors(expected)], function
        assert worked, function
