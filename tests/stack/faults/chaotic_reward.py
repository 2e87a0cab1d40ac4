"""Outcome rewards that misbehave once for every order that lies in the folder CHAOS_ORDERS: as a function, or from a
server, `chaotic_reward.py PORT`.
"""

import json
import math
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from openrlhf_prm.answers.outcome import reward_func as judged

LIES = {"nan": math.nan, "null": None, "text": "0.9", "two": [0.0, 1.0]}
SECONDS = {"slow": 5, "hang": 10**6}


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


class Handler(BaseHTTPRequestHandler):
    """The host's protocol of reward servers."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = reward_func(asked["query"], asked["prompts"], asked["labels"])
        content = json.dumps(answer, default=lambda tensor: tensor.tolist()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
