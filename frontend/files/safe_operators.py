"""Which operators a network in a file may call: those that compute tensors, numbers and lists, and
reach nothing else."""

from functools import cache
from typing import Any

import torch


def names(text: str) -> frozenset[str]:
    """The words of a list."""
    return frozenset(text.split())


# Arguments that are settings; any other text might name a file.
_SETTINGS = names(
    "approximate assert_msg driver equation indexing interpolation mode norm ord p pad_mode padding"
    " padding_side reduce rounding_mode side UPLO"
)
# Operators that make a tensor of numbers alone.
_FACTORIES = names(
    "_assert_scalar _efficientzerotensor _make_dep_token arange bartlett_window blackman_window"
    " can_cast empty empty_permuted empty_strided eye fft_fftfreq fft_rfftfreq full hamming_window"
    " hann_window kaiser_window linspace logspace normal ones promote_types rand randint randn"
    " randperm range result_type scalar_tensor sym_constrain_range sym_constrain_range_for_size"
    " tril_indices triu_indices zeros"
)
# Of PT2E, on codes; PyTorch has them where they were imported (from_torch/quantized.py).
_QUANTIZED = names(
    "quantize_per_tensor dequantize_per_tensor quantize_per_channel dequantize_per_channel"
    " quantize_per_channel_group dequantize_per_channel_group quantize_per_token"
    " dequantize_per_token choose_qparams choose_qparams_symmetric choose_qparams_per_token"
    " choose_qparams_per_token_asymmetric convert_element_type fake_quant_per_channel"
)
_TORCHVISION = names("nms qnms roi_align roi_pool ps_roi_align ps_roi_pool deform_conv2d")

# TorchScript's operators on numbers, texts, lists and dictionaries.
_SCRIPT_ATEN = names(
    "Bool Complex ComplexImplicit Delete Float FloatImplicit Int IntImplicit ScalarImplicit Size"
    " __and__ __contains__ __derive_index __getitem__ __interpolate __is__ __isnot__ __lshift__"
    " __not__ __or__ __range_length __round_to_zero_floordiv __rshift__ __upsample"
    " __upsample_bilinear __upsample_nearest __xor__ _get_tracing_state _grad_sum_to_size"
    " _infer_size _list_to_tensor _no_grad_embedding_renorm_ _no_grad_fill_ _no_grad_zero_"
    " _set_item _size_if_not_equal _tensor_to_list _unwrap_optional acos acosh add add_ all any"
    " append as_tensor asin asinh atan atan2 atanh broadcast_shapes capitalize ceil chr clear copy"
    " copysign cos cosh count cpu dequantize device dict div divmod einsum element_size endswith eq"
    " erf erfc exp expm1 extend fabs find floor floordiv fmod format frexp gcd ge get gt"
    " has_torch_function hash index insert is_autocast_cpu_enabled is_autocast_enabled"
    " is_grad_enabled is_non_overlapping_and_dense is_scripting is_strides_like_format isalnum"
    " isalpha isdigit isfinite isinf islower isnan isspace isupper items keys le len list log log10"
    " log1p lower lstrip lt mH mT mathremainder matrix_H modf mul mul_ ne neg numpy_T ord"
    " percentFormat pop popitem pow radians degrees remainder remove reverse rfind round rsplit"
    " rstrip select set_grad_enabled setdefault sin sinh size slice sort sorted split splitlines"
    " sqrt startswith str stride strip sub sum sym_size sym_stride tan tanh tensor to update upper"
    " values warn"
)
_SCRIPT_PRIM = names(
    "Constant If Loop ListConstruct ListUnpack TupleConstruct TupleUnpack TupleIndex TupleSlice"
    " DictConstruct GetAttr SetAttr CallFunction CallMethod CreateObject NumToTensor RaiseException"
    " Uninitialized unchecked_cast unchecked_unwrap_optional device dtype layout shape min max abs"
    " data is_cpu is_cuda is_ipu is_maia is_meta is_mkldnn is_mps is_mtia is_nested is_quantized"
    " is_sparse is_sparse_csr is_vulkan is_xla is_xpu itemsize requires_grad rangelist"
    " ModuleContainerIndex tolist type isinstance EnumName EnumValue StringIndex ConstantChunk"
    " Enter Exit name index nbytes Closure ImplicitTensorToNum AutogradAnyNonZero"
    " TracedModuleForward"
)

_HIGHER_ORDER = names("cond invoke_subgraph wrap_with_set_grad_enabled wrap_with_autocast")
_PYTHON = {
    "_operator": names(
        "getitem add sub mul neg mod pow floordiv truediv eq ne lt le gt ge and_ or_"
    ),
    "math": names("ceil floor trunc sqrt"),
    "torch": names("sym_int sym_float sym_max sym_min sym_not sym_sqrt sym_sum sym_ite"),
}


def program_operator(target: str) -> bool:
    """Whether an exported program may call, or name as an argument, what `target` is the path
    of."""
    if not target.isascii():
        return False
    parts = target.split(".")
    if len(parts) == 2:
        return parts[1] in _PYTHON.get(parts[0], ())
    if target.startswith("torch.ops.higher_order."):
        return len(parts) == 4 and parts[3] in _HIGHER_ORDER
    if len(parts) not in (4, 5) or parts[:2] != ["torch", "ops"]:
        return False
    overload = parts[4] if len(parts) == 5 else "default"
    return tensor_operator(f"{parts[2]}::{parts[3]}", "" if overload == "default" else overload)


def script_operator(kind: str, overload: str) -> bool:
    """Whether TorchScript may run a node of this kind, which has the operator's overload of this
    name."""
    namespace, _, name = kind.partition("::")
    if namespace == "prim":
        return name in _SCRIPT_PRIM
    if namespace == "aten" and name in _SCRIPT_ATEN:
        return True
    return tensor_operator(kind, overload)


def tensor_operator(name: str, overload: str) -> bool:
    """Whether `name`, such as `aten::add`, is an operator of PyTorch's dispatcher that takes
    tensors and settings only."""
    namespace, _, base = name.partition("::")
    if namespace == "torchvision":
        return base in _TORCHVISION
    if namespace == "quantized_decomposed":
        return base in _QUANTIZED
    if namespace != "aten":
        return False
    schema = _schemas().get((name, overload))
    if schema is None:
        return False
    if any(
        "str" in str(argument.type) and argument.name not in _SETTINGS
        for argument in schema.arguments
    ):
        return False
    return base in _FACTORIES or any(
        "Tensor" in str(argument.type) for argument in schema.arguments
    )


@cache
def _schemas() -> dict[tuple[str, str], Any]:
    """The dispatcher's operators: others, such as aten::save, belong to TorchScript alone."""
    known = set(torch._C._dispatch_get_all_op_names())
    schemas = torch._C._jit_get_all_schemas()
    return {
        (s.name, s.overload_name): s
        for s in schemas
        if ".".join(filter(None, (s.name, s.overload_name))) in known
    }
