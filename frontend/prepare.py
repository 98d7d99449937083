"""The last steps that both importers share: parameters nobody reads go, and equal things get one spelling."""

import tvm
from tvm import relax


def prepare_module(module: tvm.IRModule, inputs: int) -> tuple[tvm.IRModule, list[str]]:
    """`module` without dead code, unused parameters and importer attributes; and the names of the parameters left."""
    main = relax.transform.DeadCodeElimination(["main"])(module)["main"]
    used = {var.name for var in relax.analysis.free_vars(main.body)}
    params = [*main.params[:inputs], *(var for var in main.params[inputs:] if var.name in used)]
    attrs = {"global_symbol": "main", "num_input": inputs}
    function = relax.Function(params, main.body, main.ret_ty, main.is_pure, tvm.ir.DictAttrs(attrs))
    return tvm.IRModule({"main": function}), [var.name for var in params[inputs:]]
