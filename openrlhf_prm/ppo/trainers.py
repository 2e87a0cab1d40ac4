"""The host's PPO trainers with process rewards, sync and async.

The host's trainers name the classes they build at module level, a patched host in class attributes. Ours set both in
their own process before the host's constructors run, start the PRM workers, and attach them to the rollout actors.
Training itself stays the host's; what the plugin learned meanwhile travels in the host's checkpoints, an online PRM in
checkpoints of its own beside them.
"""

import openrlhf.trainer.ppo_trainer as sync_trainer
import openrlhf.trainer.ppo_trainer_async as async_trainer
import ray

from openrlhf_prm.advantages.branch_values import VineOptions
from openrlhf_prm.cluster.workers import EngineOptions, RemoteScorer, ScoringPool
from openrlhf_prm.ppo.experience import ProcessExperienceMaker
from openrlhf_prm.ppo.flags import build_estimator, options_of, uses_online_prm, uses_prm, uses_steps
from openrlhf_prm.ppo.online_prm import OnlinePRM
from openrlhf_prm.ppo.rollout.executor import StepScoring
from openrlhf_prm.ppo.samples import StepSamplesGenerator, TargetedPromptDataset

STATE = "openrlhf_prm"
ONLINE_PRM_TAG = "openrlhf_prm_online_prm"


def attach_step_scoring(args, vllm_engines) -> StepScoring | None:
    """Starts the PRM workers that the flags ask for and hands every rollout actor what it needs to look at steps.
    Returns None where nothing looks at them.
    """
    scoring = None
    if uses_steps(args):
        estimator = build_estimator(args)
        needs = estimator.needs if estimator else frozenset()
        vine = options_of(VineOptions, args.vine)
        branches = "branch_values" in needs and vine.values == "rollouts"
        scoring = StepScoring(
            scorer=start_scorer(args) if uses_prm(args) else None,
            splitter=args.steps.splitter,
            question_pattern=args.prm.question_pattern,
            score_range=args.prm.score_range,
            segment_ends=estimator.segment_ends if "segments" in needs else None,
            vine=vine if branches else None,
            control_variate=args.vine.control_variate,
        )
    ray.get([engine.attach_step_scoring.remote(scoring) for engine in vllm_engines or []])
    return scoring


def start_scorer(args) -> ScoringPool | RemoteScorer:
    """PRM workers as Ray actors, or a client of a running server; both answer `await score(question, steps)`."""
    if args.prm.url:
        return RemoteScorer(args.prm.url)
    options = EngineOptions(
        model=args.prm.model_name_or_path,
        num_engines=args.prm.num_engines,
        gpus=args.prm.gpus_per_engine,
        dtype=args.prm.dtype,
        seed=args.train.seed,
        max_model_len=args.prm.max_model_len,
        enforce_eager=args.prm.enforce_eager,
        gpu_memory_utilization=args.prm.gpu_memory_utilization,
        extra={"kv_cache_memory_bytes": args.prm.kv_cache_mb << 20} if args.prm.kv_cache_mb else {},
    )
    return ScoringPool.start(options, args.prm.family)


class _KeepsState:
    """For the host's trainers that own an experience maker: its state goes into checkpoints and comes back. The online
    PRM, where there is one, is saved first, so that a checkpoint of the policy never lacks its PRM.
    """

    def start_online_prm(self) -> None:
        if uses_online_prm(self.args):
            self.experience_maker.online_prm = OnlinePRM(self.strategy, self.tokenizer)

    def save_logs_and_checkpoints(self, global_step, logs_dict=None, client_states=None):
        # The host hands the same dict to the checkpoint of the best evaluation afterwards.
        client_states = {} if client_states is None else client_states
        client_states[STATE] = self.experience_maker.mixer.state_dict()
        if global_step % self.args.ckpt.save_steps == 0:
            self._save_online_prm(f"global_step{global_step}", client_states)
        super().save_logs_and_checkpoints(global_step, logs_dict, client_states)

    def save_best_checkpoint(self, eval_metrics, global_step, client_states=None):
        client_states = {} if client_states is None else client_states
        key = self._detect_eval_metric_key(eval_metrics) if eval_metrics else None
        if key in (eval_metrics or {}) and eval_metrics[key] > self.best_eval_metric_value:
            self._save_online_prm(f"best_global_step{global_step}", client_states)
        super().save_best_checkpoint(eval_metrics, global_step, client_states)

    def init_checkpoint_states(self) -> dict:
        states = super().init_checkpoint_states()
        if STATE in states:
            self.experience_maker.mixer.load_state_dict(states[STATE])
        if self.experience_maker.online_prm is not None and states["global_step"]:
            if ONLINE_PRM_TAG not in states:
                raise ValueError(f"--ckpt.load_enable: the checkpoint in {self.args.ckpt.path} has no online PRM")
            self.experience_maker.online_prm.load(states[ONLINE_PRM_TAG])
        return states

    def fit(self, *args, **kwargs):
        super().fit(*args, **kwargs)
        if self.experience_maker.online_prm is not None and self.args.online_prm.save:
            self.experience_maker.online_prm.save_model()

    def _save_online_prm(self, tag: str, client_states: dict) -> None:
        if self.experience_maker.online_prm is not None:
            self.experience_maker.online_prm.save(tag)
            client_states[ONLINE_PRM_TAG] = tag


class ProcessPPOTrainer(_KeepsState, sync_trainer.PPOTrainer.__ray_metadata__.modified_class):
    """The host's synchronous trainer with our experience maker, samples generator and prompts."""

    experience_maker_cls = ProcessExperienceMaker
    samples_generator_cls = StepSamplesGenerator

    def __init__(self, pretrain, strategy, actor, critic, reward, reference, vllm_engines, **generate_kwargs):
        sync_trainer.RemoteExperienceMaker = ProcessExperienceMaker
        sync_trainer.SamplesGenerator = StepSamplesGenerator
        sync_trainer.PromptDataset = TargetedPromptDataset
        self.step_scoring = attach_step_scoring(strategy.args, vllm_engines)
        super().__init__(pretrain, strategy, actor, critic, reward, reference, vllm_engines, **generate_kwargs)
        self.start_online_prm()


class ProcessGenerateSamplesActor(async_trainer.GenerateSamplesActor.__ray_metadata__.modified_class):
    """The host's generating half of async training, keeping step records."""

    samples_generator_cls = StepSamplesGenerator

    def __init__(self, *args, **kwargs):
        async_trainer.SamplesGenerator = StepSamplesGenerator
        sync_trainer.PromptDataset = TargetedPromptDataset
        super().__init__(*args, **kwargs)


class ProcessTrainingActor(_KeepsState, async_trainer.TrainingActor.__ray_metadata__.modified_class):
    """The host's training half of async training, with our experience maker."""

    experience_maker_cls = ProcessExperienceMaker

    def __init__(self, *args, **kwargs):
        sync_trainer.RemoteExperienceMaker = ProcessExperienceMaker
        super().__init__(*args, **kwargs)
        self.start_online_prm()


class ProcessPPOTrainerAsync(async_trainer.PPOTrainerAsync.__ray_metadata__.modified_class):
    """The host's asynchronous trainer over those two halves."""

    def __init__(self, pretrain, strategy, actor, critic, reward, reference, vllm_engines, **generate_kwargs):
        self.generator_actor_cls = async_trainer.GenerateSamplesActor = ray.remote(ProcessGenerateSamplesActor)
        self.training_actor_cls = async_trainer.TrainingActor = ray.remote(ProcessTrainingActor)
        self.step_scoring = attach_step_scoring(strategy.args, vllm_engines)
        super().__init__(pretrain, strategy, actor, critic, reward, reference, vllm_engines, **generate_kwargs)
