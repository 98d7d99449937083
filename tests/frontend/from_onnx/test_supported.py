"""The list of operators that are taken says what has a conversion, no more and no less."""

from tvm.relax.frontend.onnx import onnx_frontend

from subpc.frontend.from_onnx.model.supported import CONVERTED
from subpc.frontend.from_onnx.relax_converters.table import OURS


def test_every_converter_is_in_the_list_and_nothing_else() -> None:
    assert onnx_frontend._get_convert_map().keys() | OURS.keys() == CONVERTED
