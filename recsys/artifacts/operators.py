"""What the code of an exported tower may name: arithmetic on tensors, lists, dictionaries and text.

Everything the towers of `recsys export` use, and a few more of their kind. What reads or writes
files, starts processes or tasks, talks to other machines, prints, or makes tensors of memory that
is not its own has no place here. ``recsys/artifacts/inspection.py`` holds a tower to it; a tower
that needs another operator adds its name, after a look at what it can do.
"""

from __future__ import annotations

_ATEN = """
    __and__ __contains__ __derive_index __getitem__ __is__ __isnot__ __not__ __or__
    __range_length __xor__ _set_item abs add add_ addmm all amax amin any append arange argsort
    __range_length __xor__ _set_item abs add add_ all amax amin any append arange argmin argsort
    avg_pool1d baddbmm bincount bitwise_and bitwise_not bitwise_or bmm bucketize cat ceil
    chunk clamp clamp_max clamp_min clamp_min_ clone contiguous copy_ cos cumsum detach device
    diff dim div dropout dropout_ element_size embedding embedding_bag empty empty_like eq exp
    expand expand_as extend flatten flip floor floor_divide floordiv format full full_like
    gather ge gelu gt index index_add index_copy index_select is_floating_point item items
    join keys layer_norm le len linear list log log1p log_softmax logical_and logical_not
    logical_or lt masked_fill masked_scatter matmul max maximum mean min minimum mul
    nan_to_num narrow ne neg new_full new_zeros nonzero norm numel ones ones_like pad permute
    pin_memory pow reciprocal relu relu_ remainder repeat_interleave reshape roll round rsqrt
    rsub scaled_dot_product_attention scatter scatter_add searchsorted segment_reduce select
    sigmoid silu silu_ sin size slice softmax sort split sqrt square squeeze stack stride sub sum t
    tanh tensor to tolist topk transpose tril triu type_as unbind unflatten unsqueeze values
    view warn where zeros zeros_like
"""
_OTHERS = """
    prim.RaiseException prim.device prim.dtype prim.is_meta prim.max prim.min prim.type
    fbgemm.asynchronous_complete_cumsum fbgemm.bounds_check_indices
    fbgemm.group_index_select_dim0 fbgemm.int_nbit_split_embedding_codegen_lookup_function
    fbgemm.jagged_to_padded_dense fbgemm.keyed_jagged_index_select_dim1
    fbgemm.permute_1D_sparse_data fbgemm.permute_2D_sparse_data fbgemm.segment_sum_csr
    quantized.embedding_4bit quantized.embedding_bag_prepack quantized.embedding_bag_unpack
    quantized.embedding_byte quantized.linear_dynamic quantized.linear_dynamic_fp16
    quantized.linear_prepack quantized.linear_prepack_fp16 quantized.linear_unpack
    quantized.linear_unpack_fp16
"""
_BUILTINS = "annotate bool float getattr int isinstance range str unchecked_cast uninitialized"
_PICKLED = """
    collections.OrderedDict torch.device torch._utils._rebuild_qtensor
    torch._utils._rebuild_tensor_v2 torch.jit._pickle.build_boollist
    torch.jit._pickle.build_doublelist torch.jit._pickle.build_intlist
    torch.jit._pickle.build_tensorlist torch.jit._pickle.restore_type_tag torch.per_channel_affine
    torch.per_channel_affine_float_qparams torch.per_tensor_affine torch.BFloat16Storage
    torch.BoolStorage torch.ByteStorage torch.CharStorage torch.DoubleStorage torch.FloatStorage
    torch.HalfStorage torch.IntStorage torch.LongStorage torch.QInt8Storage torch.QUInt8Storage
    torch.ShortStorage
"""

#: Of ``torch.<name>(…)``, and of ``value.<name>(…)`` where the value is no module.
ATEN = frozenset(_ATEN.split())
#: Of ``ops.<namespace>.<name>``.
OTHERS = frozenset(_OTHERS.split())
#: Functions of the language itself; ``print``, ``fork`` and ``awaitable`` are others.
BUILTINS = frozenset(_BUILTINS.split())
#: What the pickles of an archive may name beside classes of its own code.
PICKLED = frozenset(_PICKLED.split())
#: Classes of torch written in C++: the rows and matrices of an int8 tower.
CLASSES = frozenset(
    f"__torch__.torch.classes.quantized.{name}"
    for name in ("EmbeddingPackedParamsBase", "LinearPackedParamsBase")
)
