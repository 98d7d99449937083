"""Which ONNX operators are taken: first in the file as it is, then in what is left of it when all
that follows from constants is known."""

import onnx

from subpc.errors import UnsupportedModelError
from subpc.frontend.from_onnx.graph import STANDARD_DOMAINS, node_name
from subpc.frontend.from_onnx.model.functions import OPENED
from subpc.frontend.from_onnx.model.quantized import is_quantized
from subpc.frontend.from_onnx.model.refused import refused
from subpc.frontend.messages import describe_unsupported, printable

# Operators with a conversion to Relax, TVM's or our own. A list, so that what only reads or
# compresses a network does not load TVM.
_NAMES = """
Abs Acos Acosh Add AffineGrid AllClassNMS And ArgMax ArgMin Asin Asinh Atan Atanh Attention
AveragePool BatchNormalization BiasGelu BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast
CastLike Ceil Clip Col2Im Compress Concat ConcatFromSequence Constant ConstantOfShape Conv
ConvTranspose Cos Cosh CumProd CumSum DepthToSpace DequantizeLinear Div Dropout
DynamicQuantizeLinear Einsum Elu EmbedLayerNormalization Equal Erf Exp Expand EyeLike FastGelu
Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool
GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax
Identity InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log
LogSoftmax LpNormalization LpPool MatMul MatMulInteger MatMulInteger16 Max MaxPool MaxRoiPool
MaxUnpool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot
Optional OptionalGetElement OptionalHasElement Or PRelu Pad Pow QuantizeLinear RMSNormalization
Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize RoiAlign Round Scatter ScatterElements
ScatterND Selu SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert
SequenceLength Shape Shrink Sigmoid Sign Sin Sinh Size SkipLayerNormalization Slice Softmax
Softplus Softsign SpaceToDepth Split SplitToSequence Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu
Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor
"""
CONVERTED = frozenset(_NAMES.split())
# Branches whose condition is a constant are taken or left out, like composite operators opened,
# before anything is imported.
_GONE_LATER = OPENED | {"If", "Constant"}


def check_supported(model: onnx.ModelProto, *, folded: bool = False) -> None:
    """UnsupportedModelError with all operators that have no conversion, and the nodes that use
    them.

    folded: `model` is what is imported, without anything that follows from constants.
    """
    _check_outputs(model.graph)
    known = CONVERTED | (frozenset({"Constant"}) if folded else _GONE_LATER)
    missing: dict[str, list[str]] = {}
    for node in model.graph.node:
        opened = not folded and is_quantized(node)
        standard = node.domain in STANDARD_DOMAINS and node.op_type in known
        if not opened and not standard:
            operator = (
                f"{node.domain}.{node.op_type}"
                if node.domain not in STANDARD_DOMAINS
                else node.op_type
            )
            missing.setdefault(_IN_WORDS.get(operator, operator), []).append(node_name(node))
        elif reason := refused(node, model.graph):
            missing.setdefault(reason, []).append(node_name(node))
    if missing:
        raise UnsupportedModelError(describe_unsupported(missing))


_IN_WORDS = {"If": "If, whose condition depends on the input,"}


def _check_outputs(graph: onnx.GraphProto) -> None:
    for value in graph.output:
        kind = str(value.type.WhichOneof("value"))
        if kind not in ("tensor_type", "None"):
            what = kind.removesuffix("_type").replace("_", " ")
            raise UnsupportedModelError(
                f"Output {printable(value.name)!r} of the model is a {what}; compiled models give"
                " tensors."
            )
