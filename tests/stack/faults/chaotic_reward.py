"""Outcome rewards that misbehave once for every order that lies in the folder CHAOS_ORDERS."""

import math
import os
import time
from pathlib import Path

from openrlhf_prm.answers.outcome import reward_func as judged

LIES = {"nan": math.nan, "null": None, "text": "0.9", "two": [0.0, 1.0]}
SECONDS = {"slow": 5, "hang": 10**6}
ORDERS = (*LIES, *SECONDS)


def reward_func(queries, prompts, labels):
    answer = judged(queries, prompts, labels)
    for order in Path(os.environ["CHAOS_ORDERS"]).iterdir():
        try:
            order.unlink()
        except FileNotFoundError:  # another thread's
            continue
        if order.name in LIES:
            answer["rewards"] = LIES[order.name]
        else:
            time.sleep(SECONDS[order.name])
    return answer
