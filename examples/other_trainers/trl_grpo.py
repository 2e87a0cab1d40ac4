"""GRPO by TRL with step scores in the reward: `python -m examples.other_trainers.trl_grpo --model M --prm P --data D`.

`--data`: JSONL with `question` and `answer`. `--prm`: a PRM to load in this process, or with http:// a server of step
rewards. TRL is not one of this project's requirements: pip install trl==1.16.0.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vllm_prm.scorer import StepScorer
from vllm_prm.trainer_rewards import PRMReward

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def last_number_is_right(response: str, row: Mapping[str, Any]) -> float:
    """The outcome: 1 where the last number of the response is the answer, else 0."""
    numbers = _NUMBER.findall(response)
    return float(bool(numbers) and float(numbers[-1]) == float(row["answer"]))


def main(argv: Sequence[str] | None = None) -> int:
    """Trains; the summary is the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="policy: folder or hub id")
    parser.add_argument("--prm", required=True, help="PRM: folder or hub id, or the URL of a server")
    parser.add_argument("--data", required=True, help="JSONL with question and answer")
    parser.add_argument("--output", default="trl-grpo", help="folder to write")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps")
    parser.add_argument("--samples", type=int, default=8, help="responses per question")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--engine-args", default="{}", help="vLLM engine arguments of the PRM as JSON")
    args = parser.parse_args(argv)

    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    if args.prm.startswith(("http://", "https://")):
        scorer = StepScorer.from_url(args.prm)
    else:
        scorer = StepScorer.from_pretrained(args.prm, **json.loads(args.engine_args))
    reward = PRMReward(scorer, outcome=last_number_is_right, question_key="question", aggregate="min")
    with open(args.data) as file:
        rows = [json.loads(line) for line in file]
    dataset = Dataset.from_list([{"prompt": row["question"], **row} for row in rows])
    config = GRPOConfig(
        output_dir=args.output,
        max_steps=args.steps,
        num_generations=args.samples,
        per_device_train_batch_size=args.samples,
        max_completion_length=args.max_new_tokens,
        logging_steps=1,
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
        report_to=[],
    )
    trainer = GRPOTrainer(model=args.model, reward_funcs=reward, args=config, train_dataset=dataset)
    trainer.train()
    scorer.shutdown()
    kept = ("reward", "reward_std", "prm/steps", "prm/unscored", "rewards/prm_reward/mean", "grad_norm")
    history = [{name: log[name] for name in kept if name in log} for log in trainer.state.log_history]
    print(json.dumps({"optimizer_steps": trainer.state.global_step, "history": [log for log in history if log]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
