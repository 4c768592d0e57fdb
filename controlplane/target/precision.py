"""Number formats of the model's weights: fp32, bf16, fp16, and 8 or 4 bits through torchao (weights only).

The model asks for its projections here. A format that the device cannot compute is refused with the reason, never
replaced by another one in silence.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from controlplane.target.errors import TargetError

Projection = Callable[[Tensor], Tensor]
"""Multiplies rows [rows, in] with a weight; gives [rows, out]."""

COMPUTE = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.bfloat16,
    "int4": torch.bfloat16,
}
"""In which format activations and the KV cache are kept. torchao's 4-bit kernels are fast in bf16 alone."""
INT4_GROUP = 32
"""Weights that share one scale; the smallest group that torchao's kernels know, since these layers are narrow."""
INT4_COMPUTE_CAPABILITY = (8, 0)
"""The oldest NVIDIA generation (Ampere) that torchao's tinygemm kernel runs on."""


def require(precision: str, device: torch.device) -> None:
    """Check that a device computes in a precision.

    Raises:
        TargetError: it does not, or torchao is missing; the reason and a way out are in it.
    """
    what = f"cannot serve in {precision} on {device.type}"
    if precision not in COMPUTE:
        raise TargetError(what, "there is no such precision", f"Choose one of {', '.join(COMPUTE)}.")
    if device.type == "cuda" and COMPUTE[precision] is torch.bfloat16 and not torch.cuda.is_bf16_supported():
        raise TargetError(what, f"{torch.cuda.get_device_name(device)} has no bfloat16 arithmetic", "Choose fp16.")
    if precision in {"int8", "int4"}:
        _config(precision, device)


def dense(weight: Tensor) -> Projection:
    """Multiply with a weight as it is.

    Args:
        weight: [in, out].
    """
    return lambda rows: rows @ weight


def projection(weight: Tensor, precision: str) -> Projection:
    """Make the projection of one weight in a precision.

    Args:
        weight: [in, out] on its device, in the precision's compute format.
        precision: a name in ``COMPUTE`` that ``require`` let pass.

    Raises:
        TargetError: the weight's shape does not suit the format.
    """
    if precision not in {"int8", "int4"}:
        return dense(weight)
    if precision == "int4" and (weight.shape[0] % INT4_GROUP or weight.shape[1] % INT4_GROUP):
        raise TargetError(
            "cannot serve this shape in int4", f"a layer is {weight.shape[0]} to {weight.shape[1]} wide",
            f"Choose a width and a hidden width that are multiples of {INT4_GROUP}.",
        )  # fmt: skip
    linear = nn.Linear(weight.shape[0], weight.shape[1], bias=False, device=weight.device, dtype=weight.dtype)
    linear.weight = nn.Parameter(weight.t().contiguous(), requires_grad=False)
    with _quiet():
        import_module("torchao.quantization").quantize_(linear, _config(precision, weight.device))
    # Inlined, since a module's call costs microseconds that a small model would feel.
    return lambda rows: nn.functional.linear(rows, linear.weight)


def _config(precision: str, device: torch.device) -> Any:
    """Make torchao's configuration, or say why there is none."""
    what = f"cannot serve in {precision} on {device.type}"
    try:
        with _quiet():
            torchao = import_module("torchao.quantization")
    except ImportError as error:
        raise TargetError(what, f"torchao is missing ({error})", "pip install 'controlplane[quantised]'.") from error
    if precision == "int8":
        return torchao.Int8WeightOnlyConfig(set_inductor_config=False)
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) < INT4_COMPUTE_CAPABILITY:
            name = torch.cuda.get_device_name(device)
            raise TargetError(what, f"{name} is older than Ampere, which the 4-bit kernel needs", "Choose int8.")
        return torchao.Int4WeightOnlyConfig(
            group_size=INT4_GROUP, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
        )
    try:
        prototype = import_module("torchao.prototype.quantization.int4")
    except ImportError as error:
        raise TargetError(
            what,
            "this release of torchao keeps no 4-bit kernel for CPUs where 0.18 did",
            "Choose int8 or torchao 0.18.",
        ) from error
    return prototype.PrototypeInt4WeightOnlyConfig(group_size=INT4_GROUP, set_inductor_config=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torchao's import from writing of kernels for other machines into our log."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(logging.NOTSET)
