"""A page that shows some entries of a large file: which ones, and what stands around them."""

import hashlib
import heapq
from collections.abc import Iterable, Mapping
from html import escape
from typing import TypeVar

from openrlhf_prm.report.look import STYLE

T = TypeVar("T")


def chosen(entries: Iterable[tuple[str, T]], count: int, seed: int) -> list[T]:
    """`count` of the entries, chosen by a hash of seed and id, in their order. Memory holds the chosen ones only."""
    kept: list[tuple[int, int, T]] = []
    for position, (identity, entry) in enumerate(entries):
        rank = int.from_bytes(hashlib.sha256(f"{seed}\0{identity}".encode()).digest()[:8], "big")
        heapq.heappush(kept, (-rank, position, entry))
        if len(kept) > count:
            heapq.heappop(kept)
    return [entry for _, _, entry in sorted(kept, key=lambda one: one[1])]


def sample_page(title: str, kicker: str, heading: str, cards: Mapping[str, str], style: str, body: str) -> str:
    """A page that needs no other file and may load nothing. `body` is HTML, `style` goes on top of the report's; the
    others are text, and what stands on `cards` under a name."""
    blocks = "".join(
        f'<div class="card"><div class="name">{escape(name)}</div><div class="value">{escape(value)}</div></div>'
        for name, value in cards.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body><main>"
        f'<p class="kicker">{escape(kicker)}</p><h1>{escape(heading)}</h1>'
        f'<div class="cards">{blocks}</div>{body}</main></body></html>\n'
    )
