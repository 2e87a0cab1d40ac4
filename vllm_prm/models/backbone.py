"""Any text-generation class of vLLM's registry as a step model: made when it is asked for, by name."""

from types import ModuleType

from torch import nn
from vllm import ModelRegistry
from vllm.model_executor.models.interfaces_base import default_pooling_type

from vllm_prm.architectures import step_architectures


def step_model(module: ModuleType, name: str, mixin: type, ending: str) -> type[nn.Module]:
    """The class `name` of `module`: `mixin` in front of vLLM's class of the same backbone. It becomes an attribute of
    the module, where other processes find it by name, too. `AttributeError`, as from any module, unless `name` has the
    `ending`, or if vLLM has no such backbone."""
    host = step_architectures(ModelRegistry.get_supported_archs()).get(name) if name.endswith(ending) else None
    if host is None:
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    backbone = ModelRegistry.models[host].load_model_cls()
    made = type(name, (mixin, backbone), {"__module__": module.__name__, "__doc__": f"{host} that scores steps."})
    setattr(module, name, default_pooling_type(tok_pooling_type="ALL")(made))
    return getattr(module, name)
