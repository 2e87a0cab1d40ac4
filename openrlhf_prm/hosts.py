"""Every name of OpenRLHF, vLLM, Ray and DeepSpeed that this package uses, with the versions on which they were checked.

OpenRLHF's seams move with every release, so its version is exact: another one is refused. `vllm_prm.hosts` has the
names of the other package, and what tells which are missing.
"""

import importlib
import importlib.metadata

VERSIONS = {"openrlhf": "0.11.2", "vllm": "0.29.0", "ray": "2.55.0", "deepspeed": "0.19.6"}
"""Distribution -> version on which the names were checked."""

NAMES: dict[str, tuple[str, ...]] = {
    "deepspeed.accelerator": ("get_accelerator",),
    "deepspeed.runtime.fp16.loss_scaler": ("DynamicLossScaler", "LossScaler"),
    "deepspeed.runtime.zero": ("GatheredParameters",),
    "deepspeed.runtime.zero.config": ("ZeroStageEnum",),
    "deepspeed.utils.tensor_fragment": ("fragment_address",),
    "openrlhf.datasets": ("PromptDataset",),
    "openrlhf.datasets.utils": ("blending_datasets",),
    "openrlhf.models": ("Actor",),
    "openrlhf.models.model": ("_get_critic_model",),
    "openrlhf.models.utils": ("compute_reward",),
    "openrlhf.trainer.ppo_trainer": (
        "PPOTrainer",
        "PPOTrainer._compute_rollout_stats",
        "PPOTrainer.broadcast_to_vllm",
        "PPOTrainer.fit",
        "PPOTrainer.init_checkpoint_states",
        "PPOTrainer.save_best_checkpoint",
        "PPOTrainer.save_logs_and_checkpoints",
        "PromptDataset",
        "RemoteExperienceMaker",
        "SamplesGenerator",
    ),
    "openrlhf.trainer.ppo_trainer_async": (
        "GenerateSamplesActor",
        "PPOTrainerAsync",
        "SamplesGenerator",
        "TrainingActor",
        "TrainingActor._compute_rollout_stats",
        "TrainingActor.broadcast_to_vllm",
        "TrainingActor.fit",
        "TrainingActor.init_checkpoint_states",
        "TrainingActor.save_best_checkpoint",
        "TrainingActor.save_logs_and_checkpoints",
    ),
    "openrlhf.trainer.ppo_utils.experience": ("Experience",),
    "openrlhf.trainer.ppo_utils.experience_maker": (
        "RemoteExperienceMaker",
        "RemoteExperienceMaker.compute_advantages_and_returns",
        "RemoteExperienceMaker.get_advantages_and_returns",
        "RemoteExperienceMaker.get_cumulative_returns",
        "RemoteExperienceMaker.make_experience_batch",
    ),
    "openrlhf.trainer.ppo_utils.length_penalty": ("apply_length_penalties",),
    "openrlhf.trainer.ppo_utils.samples_generator": (
        "SamplesGenerator",
        "SamplesGenerator._generate_vllm",
        "SamplesGenerator._process_response_into_experience",
        "SamplesGenerator.generate_eval_samples",
        "SamplesGenerator.generate_samples",
    ),
    "openrlhf.trainer.ray.launcher": ("BaseModelActor", "RayActorGroup"),
    "openrlhf.trainer.ray.ppo_actor": ("ActorPPOTrainer._init_vllm_sync_group",),
    "openrlhf.trainer.ray.utils": ("get_bundle_indices",),
    "openrlhf.trainer.ray.vllm_engine": (
        "RolloutRayActor",
        "RolloutRayActor.generate",
        "RolloutRayActor.generate_responses",
        "RolloutRayActor.update_weight",
        "RolloutRayActor.update_weight_cuda_ipc",
    ),
    "openrlhf.utils": ("get_strategy", "get_tokenizer"),
    "openrlhf.utils.agent": ("AgentExecutorBase", "AgentExecutorBase.execute", "SingleTurnAgentExecutor"),
    "openrlhf.utils.config": ("hierarchize",),
    "openrlhf.utils.deepspeed": (
        "DeepspeedStrategy",
        "DeepspeedStrategy._write_ckpt_metric",
        "DeepspeedStrategy.backward",
        "DeepspeedStrategy.load_ckpt",
        "DeepspeedStrategy.optimizer_step",
        "DeepspeedStrategy.save_ckpt",
    ),
    "openrlhf.utils.deepspeed.deepspeed_utils": ("offload_deepspeed_states", "reload_deepspeed_states"),
    "openrlhf.utils.distributed_sampler": ("DistributedSampler",),
    "openrlhf.utils.loss_utils": ("iter_grad_accum_global_norm",),
    "ray": (
        "available_resources",
        "cloudpickle",
        "cluster_resources",
        "exceptions",
        "get",
        "get_gpu_ids",
        "get_runtime_context",
        "init",
        "is_initialized",
        "kill",
        "nodes",
        "put",
        "remote",
        "shutdown",
        "util",
        "wait",
    ),
    "ray._private": ("ray_constants", "services"),
    "ray.util.scheduling_strategies": ("NodeAffinitySchedulingStrategy", "PlacementGroupSchedulingStrategy"),
    "vllm": ("AsyncEngineArgs", "AsyncLLMEngine", "ModelRegistry", "SamplingParams", "sampling_params"),
    "vllm.platforms": ("current_platform",),
    "vllm.plugins": ("load_general_plugins",),
    "vllm.v1.engine.exceptions": ("EngineDeadError",),
    "vllm.v1.metrics.reader": ("get_metrics_snapshot",),
}
"""Module -> its names that this package imports or rebinds, and what it overrides of its classes (`Class.method`)."""


GET_FLASH_ATTN = "scripts/install_gpu.sh installs it"


def require_openrlhf() -> None:
    """Raises ValueError where another version of OpenRLHF is installed than the one the seams were checked on."""
    wanted = VERSIONS["openrlhf"]
    try:
        found = importlib.metadata.version("openrlhf")
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"openrlhf {wanted} is needed and not installed: scripts/install_gpu.sh") from None
    if found != wanted:
        raise ValueError(f"openrlhf {wanted} is needed, found {found}")


def require_flash_attn(attention: str | None = None) -> None:
    """Raises ValueError where flash-attn cannot be imported and the host needs it: released, it always does; with
    patch 0001 only for `attention` (`--ds.attn_implementation`) "flash_attention_2". Imports the host's models.
    """
    try:
        importlib.import_module("openrlhf.models.ring_attn_utils")
    except ImportError as error:
        if "flash_attn" not in str(error):
            raise
        without = "`openrlhf-prm patch apply --only 0001` makes OpenRLHF do without"
        raise ValueError(f"OpenRLHF imports flash-attn ({error}): {GET_FLASH_ATTN}, {without}") from None
    if attention == "flash_attention_2" and (fault := flash_attn_fault()):
        flag = f"--ds.attn_implementation {attention} needs flash-attn"
        raise ValueError(f"{flag} ({fault}): {GET_FLASH_ATTN}, --ds.attn_implementation sdpa does without")


def flash_attn_fault() -> str | None:
    """Why flash-attn cannot be imported, which also happens to one that was built for another PyTorch; else None."""
    try:
        importlib.import_module("flash_attn")
    except ImportError as error:
        return str(error)
    return None
