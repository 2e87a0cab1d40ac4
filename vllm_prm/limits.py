"""How much one request to `POST /v1/step_rewards` may ask for.

`vllm-prm serve` takes the limits as flags and hands them to vLLM's server, which knows no flags of plugins, through
environment variables. No torch, no vLLM.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from vllm_prm.protocol import StepRewardRequest

VARIABLE_PREFIX = "STEP_REWARDS_"  # vLLM warns of variables that begin with VLLM_ and are not its own


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one request, all inclusive; `score_cache_size` is the server's number of remembered scores.

    `max_items` solutions, `max_steps` steps and `max_messages` chat messages in each, `max_bytes` of body. A body that
    is larger is refused before it is parsed.
    """

    max_items: int = 1024
    max_steps: int = 4096
    max_messages: int = 256
    max_bytes: int = 16 << 20
    score_cache_size: int = 200_000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name == "score_cache_size" else 1
            if value < least:
                raise ValueError(f"{_flag(name)} must be {least} or more, got {value}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Limits":
        """What `environment()` wrote; defaults where a variable is not set. `ValueError` for what is no number."""
        given = {}
        for field in fields(cls):
            text = environment.get(_variable(field.name))
            if text is not None:
                try:
                    given[field.name] = int(text)
                except ValueError:
                    raise ValueError(f"{_variable(field.name)} must be a whole number, got {text!r}") from None
        return cls(**given)

    def environment(self) -> dict[str, str]:
        """The environment variables that carry these limits."""
        return {_variable(name): str(value) for name, value in asdict(self).items()}

    def check(self, request: StepRewardRequest, splitter: str) -> None:
        """Raise `ValueError` naming the limit that `request` goes beyond. `splitter`: of responses that name none."""
        if len(request.data) > self.max_items:
            raise ValueError(
                f"data has {len(request.data)} solutions, this server takes {self.max_items} per request (--max-items)"
            )
        for index, item in enumerate(request.data):
            steps = len(item.solution_steps(splitter))
            if steps > self.max_steps:
                raise ValueError(f"data[{index}] has {steps} steps, this server takes {self.max_steps} (--max-steps)")
            messages = len(item.messages or ())
            if messages > self.max_messages:
                raise ValueError(
                    f"data[{index}] has {messages} messages, this server takes {self.max_messages} (--max-messages)"
                )


def add_limit_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `vllm-prm serve` that become `Limits`."""
    texts = {
        "max_items": "solutions per request",
        "max_steps": "steps per solution",
        "max_messages": "chat messages per solution",
        "max_bytes": "bytes per request body; a larger one is refused unread",
        "score_cache_size": "scores the server remembers, about 300 bytes each; 0 = none",
    }
    for field in fields(Limits):
        parser.add_argument(
            _flag(field.name), type=int, default=field.default, help=f"{texts[field.name]} (default {field.default})"
        )


def limits_from_flags(args: argparse.Namespace) -> Limits:
    """`Limits` from parsed flags. `ValueError` naming the flag that is out of range."""
    return Limits(**{field.name: getattr(args, field.name) for field in fields(Limits)})


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return VARIABLE_PREFIX + name.upper()
