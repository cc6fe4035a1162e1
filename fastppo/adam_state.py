"""Adam's state in the format of torch.optim.Adam, for the kernels that step it.

Making a torch.optim.Adam imports torch._dynamo: a second of every start, and nothing of it is used.
"""

from typing import Any

import torch
from torch import Tensor

from fastppo.config import RunConfig

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamState:
    """The state of one parameter; checkpoints cannot tell it from torch's fused Adam.

    Args:
        parameter: [P].
    """

    def __init__(self, parameter: torch.nn.Parameter, config: RunConfig) -> None:
        self._parameter = parameter
        self.param_groups: list[dict[str, Any]] = [
            {
                "lr": config.learning_rate,
                "betas": (0.9, 0.999),
                "eps": config.adam_eps,
                "weight_decay": 0,
                "amsgrad": False,
                "maximize": False,
                "foreach": None,
                "capturable": False,
                "differentiable": False,
                "fused": True,
                "decoupled_weight_decay": False,
                "params": [parameter],
            }
        ]
        self.state: dict[torch.nn.Parameter, dict[str, Tensor]] = {parameter: {}}

    def state_dict(self) -> dict[str, Any]:
        """As torch.optim.Adam's: tensors by name, and the settings."""
        (group,) = self.param_groups
        state = self.state[self._parameter]
        held = {0: dict(state)} if state else {}
        return {"state": held, "param_groups": [group | {"params": [0]}]}

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave.

        Raises:
            ValueError, KeyError, TypeError: it is of another parameter, or damaged.
        """
        (group,) = values["param_groups"]
        if group["params"] != [0]:
            raise ValueError(f"params is {group['params']}: expected one parameter")
        state = {}
        for index, tensors in values["state"].items():
            if index != 0:
                raise ValueError(f"state has parameter {index}: expected one parameter")
            moments = dict.fromkeys(MOMENTS, self._parameter.shape)
            shapes: dict[str, torch.Size] = {"step": torch.Size([])} | moments
            for name, shape in shapes.items():
                if tensors[name].shape != shape:
                    found = list(tensors[name].shape)
                    raise ValueError(f"{name} has shape {found}: expected {list(shape)}")
                state[name] = tensors[name].to(self._parameter.device, torch.float32)
        self.param_groups = [dict(group) | {"params": [self._parameter]}]
        self.state = {self._parameter: state}
