"""FLOPs of a JAX program's products, counted in its jaxpr."""

import math
from typing import Any

from jax.extend.core import jaxprs_in_params


def product_flops(program: Any) -> int:
    """Twice the multiply-adds of the matrix products and convolutions of a jaxpr."""
    total = 0
    for equation in program.eqns:
        out = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * out * math.prod(shape[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            out_channels = equation.params["dimension_numbers"].rhs_spec[0]
            kernel = equation.invars[1].aval.shape
            total += 2 * out * math.prod(kernel) // kernel[out_channels]
        for inner in jaxprs_in_params(equation.params):
            total += product_flops(inner)
    return total
