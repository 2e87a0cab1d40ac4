"""Memory of each role of a PPO run, from its flags and the checkpoints' configurations."""

from types import SimpleNamespace

from openrlhf_prm.cluster.checks import models_beside
from openrlhf_prm.cluster.memory import BYTES, GIB, Use, engine, frozen, trained
from openrlhf_prm.ppo.demands import has_critic, has_reward_model
from openrlhf_prm.ppo.plugin_options import PluginOptions


def uses_of(
    args: SimpleNamespace, options: PluginOptions, gib: float | None, rehearsed: bool
) -> tuple[dict, list[str]]:
    """Role -> memory of one of its processes, and what cannot be told. gib: memory of a GPU, for what takes a share.
    rehearsed: whether activations count, which takes seconds; else none.
    """
    from openrlhf_prm.cluster.rehearsal import CannotTell

    plan = _Plan(args, options, gib, rehearsed)
    roles = {"actor": plan.actor, "vllm": plan.rollout}
    roles |= {"ref": plan.reference} if args.algo.kl.init_coef > 0 else {}
    roles |= {"critic": plan.critic} if has_critic(args) else {}
    roles |= {"reward": plan.judge} if has_reward_model(args) else {}
    roles |= {"prm": plan.prm} if options.workers is not None else {}
    roles |= {"online_prm": plan.online_prm} if options.online_prm is not None else {}
    uses, unknown = {}, []
    for name, use in roles.items():
        try:
            uses[name] = use()
        except CannotTell as error:
            unknown.append(f"{name}: {error}")
    return uses, [*unknown, *dict.fromkeys(plan.without_activations)]


class _Plan:
    """The roles of one run."""

    def __init__(self, args: SimpleNamespace, options: PluginOptions, gib: float | None, rehearsed: bool):
        self.args, self.options, self.rehearsed = args, options, rehearsed
        self.taken = None if gib is None else gib * GIB
        self.dtype, self.stage = args.ds.param_dtype, args.ds.zero_stage
        self.copies = args.ds.tensor_parallel_size
        self.without_activations: list[str] = []

    def actor(self) -> Use:
        return self._trained(self.args.actor.model_name_or_path, self.args.actor)

    def critic(self) -> Use:
        judge = None if self.args.reward.remote_url else (self.args.reward.model_name_or_path or "").split(",")[0]
        model = self.args.critic.model_name_or_path or judge or self.args.actor.model_name_or_path
        return self._trained(model, self.args.critic, critic=True)

    def reference(self) -> Use:
        return self._frozen(self.args.actor.model_name_or_path, self.args.ref)

    def judge(self) -> Use:
        return self._frozen(self.args.reward.model_name_or_path, self.args.reward, critic=True)

    def online_prm(self) -> Use:
        online, args = self.options.online_prm, self.args
        model = online.model_name_or_path or args.actor.model_name_or_path
        learning = self._trained(model, online, sleeps=online.colocate and args.ds.enable_sleep)
        reference = self._frozen(online.reference or model, online, offload=args.ref.offload)
        both = {f"reference's {name}": size for name, size in reference.resting.items()}
        return Use({**learning.resting, **both}, {**learning.working, **both}, learns=True, sleeps=learning.sleeps)

    def rollout(self) -> Use:
        args = self.args
        share = None if self.taken is None else args.vllm.gpu_memory_utilization * self.taken
        weights = self._weights(args.actor.model_name_or_path, BYTES[self.dtype], args.vllm.tensor_parallel_size)
        return engine([weights], share, sleeps=args.vllm.enable_sleep and args.train.colocate_all)

    def prm(self) -> Use:
        workers = self.options.workers
        share = None if self.taken is None else workers.memory * self.taken
        model, width = self.options.prm.model_name_or_path, 4 if workers.dtype == "float32" else 2
        models = (model, *models_beside(model, workers.family))
        weights = [self._weights(each, width, workers.tensor_parallel_size) for each in models]
        return engine(weights, share, sleeps=workers.colocate and self.args.vllm.enable_sleep)

    def _weights(self, model: str, width: int, split: int) -> float:
        from openrlhf_prm.cluster.rehearsal import model_size

        return model_size(model).parameters * width / split

    def _trained(self, model: str, sizes: object, critic: bool = False, sleeps: bool | None = None) -> Use:
        from openrlhf_prm.cluster.rehearsal import model_size

        args, size = self.args, self._size(model, critic)
        processes = sizes.num_nodes * sizes.num_gpus_per_node
        ranks = max(1, processes // self.copies)
        rank = args.ds.lora.rank
        trainable = None
        if rank and sizes is not self.options.online_prm:
            trainable = rank * model_size(model, critic).lora_per_rank // self.copies
        micro = args.train.micro_batch_size
        accumulates = args.train.batch_size > micro * ranks or args.train.dynamic_batch_enable
        return trained(
            size,
            self.dtype,
            ranks,
            self.stage,
            offload=args.ds.adam_offload,
            accumulates=accumulates,
            trainable=trainable,
            activations=self._activations(model, micro, args.train.max_tokens_per_gpu, critic, training=True),
            sleeps=args.ds.enable_sleep if sleeps is None else sleeps,
        )

    def _frozen(self, model: str, sizes: object, critic: bool = False, offload: bool | None = None) -> Use:
        args, size = self.args, self._size(model, critic)
        ranks = max(1, sizes.num_nodes * sizes.num_gpus_per_node // self.copies)
        limit = args.rollout.max_tokens_per_gpu or args.train.max_tokens_per_gpu
        held = self._activations(model, args.rollout.micro_batch_size, limit, critic, training=False)
        offload = sizes.offload if offload is None else offload
        return frozen(size, self.dtype, ranks, self.stage, offload=offload, activations=held)

    def _size(self, model: str, critic: bool) -> int:
        from openrlhf_prm.cluster.rehearsal import model_size

        return model_size(model, critic).parameters // self.copies

    def _activations(self, model: str, micro: int, limit: int, critic: bool, training: bool) -> float:
        """Of a micro-batch of the longest sequences; with dynamic batches of as many tokens as fit the limit."""
        from openrlhf_prm.cluster.rehearsal import CannotTell, passes

        args = self.args
        if not self.rehearsed:
            return 0.0
        length = -(-args.data.max_len // args.ds.ring_attn_size)
        if args.train.dynamic_batch_enable:
            micro, length = 1, max(length, limit)
        checkpointing = training and args.actor.gradient_checkpointing_enable
        try:
            held = passes(model, self.dtype, micro, length, checkpointing, critic)
        except CannotTell as error:
            self.without_activations.append(f"activations: {error}")
            return 0.0
        return (held.training if training else held.forward) / self.copies
