"""The host's recursions over the policy's own tokens, past what an environment wrote between them.

The host masks values of observation tokens to 0 and then takes them for what the policy may expect: with a critic that
says 1 everywhere, an outcome of 1, 20 observation tokens and lambda 0.95, the last token before them has the target
0.36 (0.95^20) where 1 is right. Packed, a turn's last token is followed by the next turn's first one.

Shapes: B samples, A positions of prompt, turns and observations; T at most as many own tokens of a sample as A.
"""

from collections.abc import Callable

import torch


def has_observations(action_mask: torch.Tensor) -> bool:
    """Whether other tokens stand between own ones in any row of (B, A)."""
    starts = action_mask.bool() & ~torch.nn.functional.pad(action_mask.bool(), (1, 0))[:, :-1]
    return bool((starts.sum(-1) > 1).any())


def over_own_tokens(
    recursion: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]],
    columns: list[torch.Tensor],
    action_mask: torch.Tensor,
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """recursion(*columns (B, A), mask (B, A)) -> one or several (B, A), each row's own tokens moved together to the
    left for it, and back afterwards. 0 where tokens are not the policy's.
    """
    mask = action_mask.bool()
    order = (~mask).long().sort(dim=-1, stable=True).indices
    packed = recursion(*(column.gather(-1, order) for column in columns), action_mask.gather(-1, order))

    def back(result: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(result).scatter(-1, order, result) * mask

    return back(packed) if isinstance(packed, torch.Tensor) else tuple(map(back, packed))
