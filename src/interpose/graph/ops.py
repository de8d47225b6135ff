"""The operations that a graph may carry: the only allow-list.

A graph names an operation; the engine looks the name up in a table made from this list. Nothing else can run: no name
that comes from outside is ever used to find a Python object.
"""

_ELEMENTWISE = """
abs add addcdiv addcmul atan atan2 bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp cos cosh div eq erf exp
expm1 floor floor_divide fmod frac ge gt isfinite isinf isnan le lerp log log10 log1p log2 logical_and
logical_not logical_or logical_xor logit lt maximum minimum mul nan_to_num ne neg pow reciprocal remainder round rsqrt
rsub sigmoid sign sin sinh sqrt square sub tan tanh true_divide trunc where xlogy
"""
_REDUCE = """
all amax amin any argmax argmin argsort count_nonzero cummax cummin cumprod cumsum kthvalue logcumsumexp logsumexp max
mean median min mode norm nansum prod quantile sort std std_mean sum topk var var_mean vector_norm
"""
_SHAPE = """
broadcast_to cat chunk clone contiguous diag diag_embed diagonal expand expand_as flatten flip gather getitem setitem
index_add index_copy index_fill index_put index_select masked_fill masked_scatter moveaxis movedim narrow
permute ravel repeat repeat_interleave reshape reshape_as roll scatter scatter_add select setitem split squeeze stack
swapaxes swapdims t take_along_dim tensor_split tile transpose tril triu type_as unbind unflatten unfold unsqueeze
view view_as detach to float double half bfloat16 long int bool adjoint mT mH T
"""
_LINEAR = """
baddbmm addmm bmm cdist cosine_similarity cross dot einsum inner kron matmul matrix_norm mm mv outer qr svd eigh
tensordot trace inverse pinv solve cholesky
"""
_NETWORK = """
binary_cross_entropy_with_logits conv1d conv2d cross_entropy dropout elu embedding gelu glu group_norm hardtanh kl_div
layer_norm leaky_relu linear log_softmax logsigmoid mse_loss nll_loss normalize one_hot pad relu rms_norm
scaled_dot_product_attention selu silu smooth_l1_loss softmax softplus l1_loss
"""
_MAKE = "empty_like full_like ones_like rand_like randn_like zeros_like"

NETWORK: frozenset[str] = frozenset(_NETWORK.split())
"""Those that neural networks are made of."""

OPS: frozenset[str] = frozenset(" ".join([_ELEMENTWISE, _REDUCE, _SHAPE, _LINEAR, _NETWORK, _MAKE]).split())
"""The names. `getitem` and `setitem` are indexing; `setitem` gives a changed copy."""

_DTYPES = "float64 float32 float16 bfloat16 complex128 complex64 int64 int32 int16 int8 uint8 bool"

DTYPES: frozenset[str] = frozenset(_DTYPES.split())
"""The number types that a graph may name."""
