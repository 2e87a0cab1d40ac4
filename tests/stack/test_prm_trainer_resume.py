"""The PRM trainer killed in any update and started again, without DeepSpeed: one weight with dropout, a strategy that
keeps checkpoints in memory. `test_train_prm_heads` does it once with the real one."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from openrlhf.utils.distributed_sampler import DistributedSampler

from openrlhf_prm.prm_training import trainer as prm
from openrlhf_prm.prm_training.dataset import RenderedSolution, StepLabelDataset

pytestmark = pytest.mark.stack

EPOCHS, BATCH, MICRO, SOLUTIONS = 3, 4, 2, 13  # an epoch is 12 solutions, 3 updates


class Killed(Exception):
    """The process is gone."""


class Engine(torch.nn.Module):
    """Stands for DeepSpeed's: counts updates, steps where a window ends."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(3, 1))
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.1)
        self.global_steps = self.micro_steps = 0

    def step(self) -> None:
        self.micro_steps += 1
        if self.micro_steps % (BATCH // MICRO) == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.global_steps += 1


class Strategy:
    """What the trainer asks of the host's, for one process."""

    accumulated_gradient = BATCH // MICRO

    def __init__(self, kill_at: int | None):
        self.kill_at, self.saved = kill_at, None

    def is_rank_0(self) -> bool:
        return True

    def print(self, *_) -> None:
        pass

    def backward(self, loss, actor, optimizer) -> None:
        loss.backward()

    def optimizer_step(self, optimizer, actor, scheduler) -> None:
        if actor.model.global_steps + 1 == self.kill_at:
            raise Killed
        actor.model.step()

    def all_reduce(self, value: float) -> float:
        return value

    def get_grad_norm(self, actor) -> float:
        return 0.0

    def save_ckpt(self, engine, path, tag, max_num, max_mem, states) -> None:
        self.saved = copy.deepcopy((engine, states))


class Head:
    """Log-odds from the tokens' values."""

    outcome = False
    family = SimpleNamespace(decode=lambda raw: [row[0] for row in raw])

    def raw(self, actor, reference, batch):
        return actor.model.net(batch.token_ids[batch.step_rows].float())

    def log_odds(self, raw, batch):
        return raw[:, 0]

    def declared(self) -> dict:
        return {}


@pytest.fixture(scope="module", autouse=True)
def one_process(tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture(autouse=True)
def saved_as_records(monkeypatch):
    def save(actor, tokenizer, strategy, folder, declared, *, record, replace):
        folder.mkdir(exist_ok=True)
        weights = [parameter.tolist() for parameter in actor.model.parameters()]
        (folder / "prm_training.json").write_text(json.dumps({**record, "weights": weights}))

    monkeypatch.setattr(prm, "save_prm", save)


def loader(shuffle: bool):
    data = StepLabelDataset.__new__(StepLabelDataset)
    generator = torch.Generator().manual_seed(1)
    data.pad_token_id = 0
    data.rendered = [
        RenderedSolution(
            index, torch.randint(-3, 4, (3,), generator=generator).tolist(), [2], [float(index % 3 > 0)], 0
        )
        for index in range(SOLUTIONS)
    ]
    sampler = DistributedSampler(data, num_replicas=1, rank=0, shuffle=shuffle, seed=5, drop_last=shuffle)
    return torch.utils.data.DataLoader(
        data, batch_size=MICRO, sampler=sampler, drop_last=shuffle, collate_fn=data.collate
    )


def run(folder, eval_steps: int, save_steps: int, kill_at: int | None = None, goes_on_from=None):
    """A training: what it ends with, or the last checkpoint where it is killed."""
    engine, states = goes_on_from or (Engine(), {"prm": {"data": {}}})
    strategy, state = Strategy(kill_at), prm.TrainingState(**states["prm"])

    class Actor(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = engine

    plan = prm.TrainingPlan(
        batch_size=BATCH,
        max_epochs=EPOCHS,
        seed=7,
        eval_steps=eval_steps,
        logging_steps=1,
        save_steps=save_steps,
        checkpoints="",
        max_checkpoints=1,
        max_checkpoint_gb=1,
        best_metric="loss",
        output_dir=folder / "prm",
    )
    scheduler = SimpleNamespace(get_last_lr=lambda: [0.1])
    trainer = prm.PRMTrainer(
        Head(), Actor(), strategy, None, scheduler, loader(True), loader(False), plan=plan, tokenizer=None
    )
    try:
        trainer.fit(state)
    except Killed:
        return strategy.saved
    weights = [parameter.tolist() for parameter in engine.parameters()]
    return weights, state, json.loads((folder / "prm.best" / "prm_training.json").read_text())


@pytest.mark.parametrize(("eval_steps", "save_steps"), [(-1, 1), (-1, 2), (2, 3), (1, 4)])
@pytest.mark.parametrize("kill_at", range(1, 10))
def test_a_killed_run_ends_where_it_would_have_ended(tmp_path, eval_steps, save_steps, kill_at):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    expected = run(whole, eval_steps, save_steps)
    assert len(expected[1].losses) == 9 and expected[1].consumed_samples == 36
    checkpoint = run(killed, eval_steps, save_steps, kill_at)
    assert (checkpoint is not None) == (kill_at > save_steps)
    if checkpoint is not None:
        assert checkpoint[0].global_steps == (kill_at - 1) // save_steps * save_steps
    assert run(killed, eval_steps, save_steps, goes_on_from=checkpoint) == expected


def test_dropout_matters(tmp_path, monkeypatch):
    """Else the test above would not notice lost random numbers."""

    def weights():
        return run(tmp_path, -1, 1, goes_on_from=(Engine(), {"prm": {"data": {}}}))[0]

    first = weights()
    torch.rand(5)
    assert weights() == first
    start = (Engine(), {"prm": {"data": {}}})
    torch.rand(5)
    monkeypatch.setattr(torch, "manual_seed", lambda seed: None)
    assert run(tmp_path, -1, 1, goes_on_from=start)[0] != first
