"""The host's PPO flags that the plugin reads, with the plugin's own, parsed as the host parses them."""

import argparse
from collections.abc import Sequence
from types import SimpleNamespace

from openrlhf_prm.cli.parser import nested
from openrlhf_prm.ppo.flags import add_arguments


def parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The plugin's flags on a parser with the host's. `arguments`: the command line that will be parsed."""
    host = argparse.ArgumentParser()
    host.add_argument("--algo.advantage.estimator", choices=["gae", "rloo", "group_norm"], default="rloo")
    host.add_argument("--algo.advantage.gamma", type=float, default=1.0)
    host.add_argument("--algo.advantage.lambd", type=float, default=1.0)
    host.add_argument("--algo.advantage.no_std_norm", action="store_true")
    host.add_argument("--actor.loss_agg_mode", default="token-mean")
    host.add_argument("--rollout.n_samples_per_prompt", type=int, default=4)
    host.add_argument("--rollout.max_new_tokens", type=int, default=None)
    host.add_argument("--rollout.temperature", type=float, default=1.0)
    host.add_argument("--algo.dynamic_filtering_enable", action="store_true")
    host.add_argument("--algo.dynamic_filtering_range", type=float, nargs=2, default=(0, 1))
    host.add_argument("--reward.clip_range", type=float, nargs=2, default=(-10, 10))
    host.add_argument("--reward.stop_properly_penalty_coef", type=float, default=None)
    host.add_argument("--data.max_len", type=int, default=2048)
    host.add_argument("--actor.num_nodes", type=int, default=1)
    host.add_argument("--actor.num_gpus_per_node", type=int, default=8)
    host.add_argument("--algo.kl.init_coef", type=float, default=0.01)
    host.add_argument("--algo.kl.estimator", choices=["k1", "k2", "k3"], default="k1")
    host.add_argument("--train.colocate_all", action="store_true")
    host.add_argument("--train.colocate_critic_reward", action="store_true")
    host.add_argument("--train.async_enable", action="store_true")
    host.add_argument("--vllm.gpu_memory_utilization", type=float, default=0.95)
    host.add_argument("--vllm.num_engines", type=int, default=1)
    host.add_argument("--vllm.enable_prefix_caching", action="store_true")
    host.add_argument("--train.agent_func_path", default=None)
    host.add_argument("--reward.remote_url", default=None)
    host.add_argument("--data.max_images_per_prompt", type=int, default=0)
    host.add_argument("--ds.load_in_4bit", action="store_true")
    host.add_argument("--ds.adam_offload", action="store_true")
    host.add_argument("--ds.ring_attn_size", type=int, default=1)
    host.add_argument("--ds.tensor_parallel_size", type=int, default=1)
    host.add_argument("--ds.use_universal_ckpt", action="store_true")
    host.add_argument("--data.prompt_dataset", default="owner/questions")
    host.add_argument("--data.input_key", default="input")
    host.add_argument("--data.input_template", default=None)
    host.add_argument("--data.apply_chat_template", action="store_true")
    host.add_argument("--actor.model_name_or_path", default=None)
    host.add_argument("--algo.kl.use_loss", action="store_true")
    host.add_argument("--algo.kl.target", type=float, default=None)
    host.add_argument("--reward.overlong_buffer_len", type=float, default=None)
    host.add_argument("--data.label_key", default=None)
    host.add_argument("--eval.dataset", default=None)
    host.add_argument("--ckpt.path", default="./ckpt")
    host.add_argument("--ckpt.load_enable", action="store_true")
    add_arguments(host, arguments)
    return host


def parse(*arguments: str) -> SimpleNamespace:
    """The namespace the host hands to the plugin."""
    return nested(parser(arguments).parse_args(arguments))
