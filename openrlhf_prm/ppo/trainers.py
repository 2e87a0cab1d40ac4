"""The host's PPO trainers with process rewards, sync and async.

The host's trainers name the classes they build at module level, a patched host in class attributes. Ours set both in
their own process before the host's constructors run, start the PRM workers, and attach them to the rollout actors.
Training itself stays the host's; what the plugin learned meanwhile travels in the host's checkpoints, an online PRM in
checkpoints of its own beside them.
"""

from functools import partial

import openrlhf.trainer.ppo_trainer as sync_trainer
import openrlhf.trainer.ppo_trainer_async as async_trainer
import ray
import torch

from openrlhf_prm.advantages.estimator import EstimatorNeed
from openrlhf_prm.cluster.remote_scorer import RemoteScorer
from openrlhf_prm.cluster.workers import ScoringPool
from openrlhf_prm.ppo.colocation import host_group, prm_places
from openrlhf_prm.ppo.experience import ProcessExperienceMaker
from openrlhf_prm.ppo.online_prm import OnlinePRM
from openrlhf_prm.ppo.plugin_options import PluginOptions, read_options
from openrlhf_prm.ppo.progress import Progress, progress_line
from openrlhf_prm.ppo.rollout import revival
from openrlhf_prm.ppo.rollout.executor import StepScoring
from openrlhf_prm.ppo.samples import StepSamplesGenerator, TargetedPromptDataset
from openrlhf_prm.ppo.self_correction.checks import prompt_options
from openrlhf_prm.ppo.self_correction.experience import SelfCorrectionExperienceMaker

STATE = "openrlhf_prm"
ONLINE_PRM_TAG = "openrlhf_prm_online_prm"
FRESH = {"episode": 0, "global_step": 0, "total_consumed_prompts": 0, "data_loader_state_dict": {}}
"""What the host's checkpoints say where there is none yet."""


def attach_step_scoring(options: PluginOptions, args, vllm_engines, actors=None) -> StepScoring | None:
    """Starts the PRM workers that the options ask for and hands every rollout actor what it needs to look at steps.
    Returns None where nothing looks at them. `actors`: the policy's group, whose GPUs a colocated PRM shares.
    """
    scoring, corrects = None, options.self_correction
    if options.looks_at_steps:
        segments = EstimatorNeed.SEGMENTS in options.estimator_needs
        forks = EstimatorNeed.FORKS in options.estimator_needs
        prm, vine, credit = options.prm, options.vine, options.credit
        scoring = StepScoring(
            scorer=start_scorer(options, args, vllm_engines, actors) if prm else None,
            splitter=options.steps.splitter if options.steps else None,
            question_pattern=prm.question_pattern if prm else None,
            score_range=prm.score_range if prm else "probability",
            segment_ends=options.estimator.segment_ends if segments else None,
            vine=vine if vine and vine.values == "rollouts" else None,
            observations=credit is None or not credit.hide_observations,
            turn_rewards=credit is not None and credit.turn_rewards,
            turns_apart=corrects is not None and not corrects.within_chain,
            forks=options.estimator if forks else None,
        )
    tell(vllm_engines or [], scoring, options, args)
    return scoring


def tell(engines, scoring: StepScoring | None, options: PluginOptions, args) -> None:
    """Rollout actors that have just started learn how to look at steps, and how long to wait for rewards."""
    if options.self_correction is not None:
        prompts = prompt_options(args)
        ray.get([engine.write_attempts.remote(options.self_correction, prompts) for engine in engines])
    limit = options.reward.timeout if options.reward else None
    ray.get([engine.attach_step_scoring.remote(scoring, limit) for engine in engines])


def start_scorer(options: PluginOptions, args, vllm_engines, actors=None) -> ScoringPool | RemoteScorer:
    """PRM workers as Ray actors, or a client of running servers; both answer `await score(question, steps)`."""
    if options.workers is None:
        return RemoteScorer(options.prm)
    workers = options.workers
    extra = {"kv_cache_memory_bytes": workers.kv_cache_mb << 20} if workers.kv_cache_mb else {}
    engines = workers.engines(options.prm.model_name_or_path, args.train.seed, extra)
    if not workers.colocate:
        return ScoringPool.start(engines, workers.family)
    # Engines that share a GPU start one after the other: rollouts first, which are asleep once they have started.
    ray.get([engine.__ray_ready__.remote() for engine in vllm_engines])
    places = prm_places(host_group(actors), workers.num_engines, workers.tensor_parallel_size)
    pool = ScoringPool.start(engines, workers.family, sleeps(options, args), places)
    if sleeps(options, args):
        pool.sleep()
    return pool


def experience_maker(options: PluginOptions) -> partial:
    """What makes the run's experience maker, called as the host calls its own class."""
    kind = ProcessExperienceMaker if options.self_correction is None else SelfCorrectionExperienceMaker
    return partial(kind, options=options)


def sleeps(options: PluginOptions, args) -> bool:
    """Whether PRM engines sleep while the policy is trained."""
    return options.workers is not None and options.workers.colocate and args.vllm.enable_sleep


class _KeepsState:
    """For the host's trainers that have an experience maker: its state goes into checkpoints and comes back. The online
    PRM, where there is one, is saved first, so that a checkpoint of the policy never lacks its PRM. Every update is
    told in one line.
    """

    progress: Progress | None = None  # set before the run starts
    step_scoring: StepScoring | None = None  # what rollout actors were told, for those that come back

    def keep_scoring(self, scoring: StepScoring | None) -> None:
        """What rollout actors were told."""
        self.step_scoring = scoring

    def expect_prompts(self, prompts: int) -> None:
        """prompts: how many the run will take in all, for the time that is left."""
        self.progress = Progress(prompts)
        self.experience_maker.booking.prompts = prompts

    def _compute_rollout_stats(self, experiences) -> dict:
        """The host's figures of a rollout and our columns': the host logs these after the actor's training, from what
        each of its micro batches held, and not at all while a critic trains alone.
        """
        names = self.experience_maker.logged
        means = {name: torch.cat([experience.info[name] for experience in experiences]).mean() for name in names}
        return super()._compute_rollout_stats(experiences) | {name: mean.item() for name, mean in means.items()}

    def start_online_prm(self) -> None:
        options = self.experience_maker.options
        if options.online_prm is not None:
            group = host_group(self.actor_model_group) if options.online_prm.colocate else None
            self.experience_maker.online_prm = OnlinePRM(options, self.strategy, self.tokenizer, group)

    def save_logs_and_checkpoints(self, global_step, logs_dict=None, client_states=None):
        # The host hands the same dict to the checkpoint of the best evaluation afterwards.
        client_states = {} if client_states is None else client_states
        if logs_dict and self.progress is not None:
            logs_dict |= self.progress.columns(client_states["total_consumed_prompts"])
            print(f"openrlhf_prm: {progress_line(global_step, logs_dict)}", flush=True)
        algo, group_size = self.args.algo, self.args.rollout.n_samples_per_prompt
        consumed = client_states.get("total_consumed_prompts", 0)
        self.experience_maker.booking.update(global_step, consumed, group_size, algo.dynamic_filtering_enable)
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
        # A run that was killed before its first checkpoint was whole has a folder, and nothing in it to go on from.
        states = super().init_checkpoint_states() or dict(FRESH)
        if STATE in states:
            self.experience_maker.mixer.load_state_dict(states[STATE])
        if self.experience_maker.online_prm is not None and states["global_step"]:
            if ONLINE_PRM_TAG not in states:
                raise ValueError(f"--ckpt.load_enable: the checkpoint in {self.args.ckpt.path} has no online PRM")
            self.experience_maker.online_prm.load(states[ONLINE_PRM_TAG])
        self.experience_maker.booking.began(states["global_step"], states["total_consumed_prompts"])
        return states

    def broadcast_to_vllm(self) -> None:
        """The host's, also to an engine that died and came back meanwhile. With new weights rollout actors may get
        a new stage of self-correction; so they do where a run goes on.
        """
        lost = revival.stale(self.vllm_engines)
        if lost:
            tell(lost, self.step_scoring, self.experience_maker.options, self.args)
            actors = self.actor_model_group._actor_handlers
            ray.get([actor.__ray_call__.remote(revival.join_weight_group) for actor in actors])
        super().broadcast_to_vllm()
        corrects = self.experience_maker.options.self_correction
        if corrects is not None and corrects.offline_share:
            stage = corrects.stage_of(self.experience_maker.mixer.rollouts)
            ray.get([engine.set_stage.remote(stage) for engine in self.vllm_engines])
        ray.get([engine.now_current.remote() for engine in lost])

    def fit(self, *args, **kwargs):
        super().fit(*args, **kwargs)
        self.experience_maker.booking.ended()
        if self.experience_maker.online_prm is not None and self.experience_maker.options.online_prm.save:
            self.experience_maker.online_prm.save_model()

    def _save_online_prm(self, tag: str, client_states: dict) -> None:
        if self.experience_maker.online_prm is not None:
            self.experience_maker.online_prm.save(tag)
            client_states[ONLINE_PRM_TAG] = tag


class ProcessPPOTrainer(_KeepsState, sync_trainer.PPOTrainer.__ray_metadata__.modified_class):
    """The host's synchronous trainer with our experience maker, samples generator and prompts."""

    def __init__(self, pretrain, strategy, actor, critic, reward, reference, vllm_engines, **generate_kwargs):
        options = read_options(strategy.args)
        maker = experience_maker(options)
        self.experience_maker_cls = sync_trainer.RemoteExperienceMaker = maker
        sync_trainer.PromptDataset = partial(TargetedPromptDataset, penalty=options.penalty)
        self.step_scoring = attach_step_scoring(options, strategy.args, vllm_engines, actor)
        sleeper = self.step_scoring.scorer if sleeps(options, strategy.args) else None
        self.samples_generator_cls = sync_trainer.SamplesGenerator = partial(StepSamplesGenerator, sleeper=sleeper)
        super().__init__(pretrain, strategy, actor, critic, reward, reference, vllm_engines, **generate_kwargs)
        self.samples_generator.revive = self.broadcast_to_vllm
        self.start_online_prm()
        self.expect_prompts(len(self.prompts_dataloader) * strategy.args.train.num_episodes)


class ProcessGenerateSamplesActor(async_trainer.GenerateSamplesActor.__ray_metadata__.modified_class):
    """The host's generating half of async training, keeping step records."""

    def __init__(self, pretrain, strategy, *args, **kwargs):
        penalty = read_options(strategy.args).penalty
        self.samples_generator_cls = async_trainer.SamplesGenerator = StepSamplesGenerator
        sync_trainer.PromptDataset = partial(TargetedPromptDataset, penalty=penalty)
        super().__init__(pretrain, strategy, *args, **kwargs)

    def prompts_in_all(self) -> int:
        return len(self.prompts_dataloader) * self.args.train.num_episodes


class ProcessTrainingActor(_KeepsState, async_trainer.TrainingActor.__ray_metadata__.modified_class):
    """The host's training half of async training, with our experience maker."""

    def __init__(self, pretrain, strategy, *args, **kwargs):
        maker = experience_maker(read_options(strategy.args))
        self.experience_maker_cls = sync_trainer.RemoteExperienceMaker = maker
        super().__init__(pretrain, strategy, *args, **kwargs)
        self.start_online_prm()


class ProcessPPOTrainerAsync(async_trainer.PPOTrainerAsync.__ray_metadata__.modified_class):
    """The host's asynchronous trainer over those two halves."""

    def __init__(self, pretrain, strategy, actor, critic, reward, reference, vllm_engines, **generate_kwargs):
        self.generator_actor_cls = async_trainer.GenerateSamplesActor = ray.remote(ProcessGenerateSamplesActor)
        self.training_actor_cls = async_trainer.TrainingActor = ray.remote(ProcessTrainingActor)
        self.step_scoring = attach_step_scoring(read_options(strategy.args), strategy.args, vllm_engines)
        super().__init__(pretrain, strategy, actor, critic, reward, reference, vllm_engines, **generate_kwargs)
        prompts = ray.get(self.generator_actor.prompts_in_all.remote())
        ray.get(self.trainer_actor.expect_prompts.remote(prompts))
        ray.get(self.trainer_actor.keep_scoring.remote(self.step_scoring))
