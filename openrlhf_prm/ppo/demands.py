"""What a PPO run asks of Ray, in the host's order (`openrlhf.cli.train_ppo_ray.train`, then our trainers).

The host's models lie in placement groups of one GPU and one CPU per process: groups of their own, or shared ones under
`--train.colocate_*`, where every process takes `SHARE` of a GPU. A model with one GPU per node and no group to share
gets processes without a group. PRM workers and the online PRM come last, or live in the group of all.
"""

from types import SimpleNamespace

from openrlhf_prm.cluster.demands import Demand, Group, Role
from openrlhf_prm.cluster.engine_options import EngineFlags
from openrlhf_prm.ppo.colocation import SHARE
from openrlhf_prm.ppo.option_groups import OnlinePRMOptions
from openrlhf_prm.ppo.plugin_options import PluginOptions


def demands_of(args: SimpleNamespace, options: PluginOptions) -> list[Demand]:
    """Groups and processes in the order in which they are asked for. `args`: the host's hierarchized namespace, before
    or after the host has filled in what follows from other flags.

    Raises ValueError, naming the flags, for sizes that the host refuses or that do not go together.
    """
    train, shares_all = args.train, args.train.colocate_all
    hybrid = shares_all and not train.async_enable
    demands: list[Demand] = []
    policy = [_model("actor", args), *([_model("ref", args)] if args.algo.kl.init_coef > 0 else [])]
    valued = [
        *([_model("critic", args)] if has_critic(args) else []),
        *([_model("reward", args)] if has_reward_model(args) else []),
    ]
    rollout = _rollout(args, hybrid)
    if train.colocate_actor_ref or shares_all:
        _same_size(args, policy, "--train.colocate_all" if shares_all else "--train.colocate_actor_ref")
        sharing = list(policy)
        if hybrid and rollout:
            _fills(rollout, policy[0])
            sharing.append(rollout)
        # `--train.colocate_critic_reward` makes a group of its own even then.
        if shares_all and not (has_critic(args) and train.colocate_critic_reward):
            sharing += valued
            valued = []
        sharing += [role for role, colocated in _prms(options) if colocated]
        demands.append(_group(sharing))
    if rollout and not hybrid:
        demands.append(Group(bundles=rollout.processes * rollout.spans, roles=(rollout,)))
    if not (train.colocate_actor_ref or shares_all):
        demands += [_own(role, args) for role in policy]
    if has_critic(args) and train.colocate_critic_reward and valued:
        _same_size(args, [_model("critic", args), _model("reward", args)], "--train.colocate_critic_reward")
        demands.append(_group(valued))
    else:
        demands += [_own(role, args) for role in valued]
    return [*demands, *_of_trainers(args, options)]


def has_critic(args: SimpleNamespace) -> bool:
    """Whether the host trains one: for its own `gae` alone."""
    return args.algo.advantage.estimator == "gae"


def has_reward_model(args: SimpleNamespace) -> bool:
    """Whether outcomes are judged by a model in the cluster."""
    return not (args.reward.remote_url or args.train.agent_func_path)


def check_batches(args: SimpleNamespace) -> None:
    """Raises ValueError where a batch cannot be shared out over a model's processes, at which DeepSpeed or the host
    would stop once every engine is up.
    """
    sizes = {"train.micro_batch_size": args.train, "rollout.micro_batch_size": args.rollout}
    sizes |= {"ds.ring_attn_size": args.ds, "ds.tensor_parallel_size": args.ds}
    for flag, group in sizes.items():
        if getattr(group, flag.partition(".")[2]) < 1:
            raise ValueError(f"--{flag} must be at least 1, got {getattr(group, flag.partition('.')[2])}")
    copies = args.ds.ring_attn_size * args.ds.tensor_parallel_size
    models = ["actor", *(["ref"] if args.algo.kl.init_coef > 0 else []), *(["critic"] if has_critic(args) else [])]
    models += ["reward"] if has_reward_model(args) else []
    for name in models:
        role = _model(name, args)
        if role.processes % copies:
            raise ValueError(
                f"{role.flags} is {role.processes}, which must be a multiple of --ds.ring_attn_size x "
                f"--ds.tensor_parallel_size, {copies}"
            )
        if args.train.dynamic_batch_enable and name in ("actor", "critic"):
            continue
        per_pass = args.train.micro_batch_size * role.processes // copies
        if args.train.batch_size % per_pass:
            raise ValueError(
                f"--train.batch_size {args.train.batch_size} must be a multiple of {per_pass}, which is "
                f"--train.micro_batch_size x {role.flags}"
            )
    samples = args.rollout.batch_size * args.rollout.n_samples_per_prompt
    ranks = _model("actor", args).processes // copies
    if samples // args.rollout.micro_batch_size < ranks:
        raise ValueError(
            f"--rollout.batch_size x --rollout.n_samples_per_prompt is {samples}, too few for {ranks} processes of the "
            f"actor with --rollout.micro_batch_size {args.rollout.micro_batch_size} each"
        )


def _model(name: str, args: SimpleNamespace) -> Role:
    """A model of the host's: one process per GPU."""
    sizes = getattr(args, name)
    flags = f"--{name}.num_nodes x --{name}.num_gpus_per_node"
    for flag in ("num_nodes", "num_gpus_per_node"):
        if getattr(sizes, flag) < 1:
            raise ValueError(f"--{name}.{flag} must be at least 1, got {getattr(sizes, flag)}")
    return Role(name=name, processes=sizes.num_nodes * sizes.num_gpus_per_node, gpus=1.0, flags=flags)


def _rollout(args: SimpleNamespace, hybrid: bool) -> Role | None:
    """The engines that write responses. With tensor parallelism vLLM's own workers take the shares of the bundles."""
    engines = args.vllm.num_engines
    if not engines or engines < 0:
        return None
    ranks = args.vllm.tensor_parallel_size
    if ranks < 1:
        raise ValueError(f"--vllm.tensor_parallel_size must be at least 1, got {ranks}")
    flags = "--vllm.num_engines x --vllm.tensor_parallel_size"
    return Role(name="vllm", processes=engines, gpus=SHARE if hybrid else 1.0, spans=ranks, flags=flags)


def _same_size(args: SimpleNamespace, roles: list[Role], flag: str) -> None:
    """The host's assertions: models that share a group have as many nodes and GPUs."""
    sizes = [(getattr(args, role.name).num_nodes, getattr(args, role.name).num_gpus_per_node) for role in roles]
    for role, size in zip(roles[1:], sizes[1:], strict=True):
        if size != sizes[0]:
            ours, first = (f"{nodes} x {gpus}" for nodes, gpus in (size, sizes[0]))
            raise ValueError(f"{flag}: {role.flags} is {ours} and {roles[0].flags} {first}; they must be the same")


def _fills(rollout: Role, actor: Role) -> None:
    """The host's assertion: engines and policy take the same GPUs."""
    taken = rollout.processes * rollout.spans
    if taken != actor.processes:
        raise ValueError(
            f"--train.colocate_all: {rollout.flags} is {taken} and {actor.flags} {actor.processes}; "
            "they must be the same"
        )


def _group(roles: list[Role]) -> Group:
    """A group of the size of its first role, which every role shares."""
    shared = [_with_share(role) for role in roles]
    return Group(bundles=shared[0].processes, roles=tuple(shared))


def _with_share(role: Role) -> Role:
    return Role(**{**vars(role), "gpus": SHARE, "cpus": SHARE})


def _own(role: Role, args: SimpleNamespace) -> Demand:
    """The GPUs of a model that shares none: a group, or with one GPU per node processes without one."""
    return Group(bundles=role.processes, roles=(role,)) if getattr(args, role.name).num_gpus_per_node > 1 else role


def _of_trainers(args: SimpleNamespace, options: PluginOptions) -> list[Demand]:
    """What our trainers ask for once the host's models have their places, and the place of the trainer itself."""
    trainer = Role(name="trainer", processes=1, gpus=0.0, holds_cpus=False)
    apart: list[Demand] = []
    for role, colocated in _prms(options):
        if colocated:
            continue
        several = role.name == "online_prm" and options.online_prm.num_gpus_per_node > 1
        apart.append(Group(bundles=role.processes, roles=(role,)) if several else role)
    # In async runs two more actors are placed behind the PRM, which need a CPU for that moment.
    return [*apart, trainer] if args.train.async_enable else [trainer, *apart]


def _prms(options: PluginOptions) -> list[tuple[Role, bool]]:
    """The PRMs' processes, with whether they live in the group of all."""
    prms = []
    if options.workers is not None:
        prms.append((_engines(options.workers), options.workers.colocate))
    if options.online_prm is not None:
        prms.append((_online(options.online_prm), options.online_prm.colocate))
    return prms


def _engines(workers: EngineFlags) -> Role:
    split = workers.tensor_parallel_size
    flags = "--prm.num_engines x --prm.tensor_parallel_size" if split > 1 else "--prm.num_engines"
    flags += " x --prm.gpus_per_engine" if workers.gpus_per_engine < 1 else ""
    if workers.colocate:
        return Role(name="prm", processes=workers.num_engines, gpus=SHARE, cpus=SHARE, spans=split, flags=flags)
    return Role(name="prm", processes=workers.num_engines, gpus=workers.engines("", 0).gpus, flags=flags)


def _online(online: OnlinePRMOptions) -> Role:
    flags = "--online_prm.num_nodes x --online_prm.num_gpus_per_node"
    share = SHARE if online.colocate else online.gpus_per_actor
    processes = online.num_nodes * online.num_gpus_per_node
    return Role(name="online_prm", processes=processes, gpus=share, cpus=share, flags=flags)
