"""What DeepSpeed writes into its files is read without being run, and nothing else is."""

import pickle
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from openrlhf_prm.cluster.checkpoints import CheckpointError
from openrlhf_prm.cluster.guarded_strategy import TRUSTED, GuardedStrategy, NotFinite, _tensors_and_plain_data


class Planted:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def engine():
    return SimpleNamespace(checkpoint_engine=SimpleNamespace(load=lambda path, map_location=None: "pickled"))


def test_classes_of_zero_come_back(tmp_path, engine):
    kept = engine.checkpoint_engine.load
    state = {
        "loss_scaler": LossScaler(scale=1),
        "dynamic": DynamicLossScaler(
            init_scale=4, scale_window=3, min_scale=1, delayed_shift=1, consecutive_hysteresis=False
        ),
        "zero_stage": ZeroStageEnum.gradients,
        "param_slice_mappings": [OrderedDict(w=fragment_address(numel=3, start=1))],
        "weights": torch.ones(2),
        "sparse": set(),
        "shapes": [OrderedDict(w=torch.Size([2]))],
        "dtype": torch.bfloat16,
    }
    torch.save(state, tmp_path / "file")
    with _tensors_and_plain_data(engine):
        loaded = engine.checkpoint_engine.load(tmp_path / "file")
    assert loaded["zero_stage"] == 2 and loaded["param_slice_mappings"] == state["param_slice_mappings"]
    assert loaded["loss_scaler"].loss_scale == 1 and loaded["dynamic"].scale_window == 3
    assert engine.checkpoint_engine.load is kept


def test_planted_code_is_not_run(tmp_path, engine, monkeypatch):
    made = tmp_path / "made"
    for name, write in (("zip", torch.save), ("pickle", lambda state, path: path.write_bytes(pickle.dumps(state)))):
        write({"weights": Planted(made)}, tmp_path / name)
        with _tensors_and_plain_data(engine), pytest.raises(pickle.UnpicklingError):
            engine.checkpoint_engine.load(tmp_path / name)
    assert not made.exists()
    monkeypatch.setenv(TRUSTED, "1")
    with _tensors_and_plain_data(engine):
        assert engine.checkpoint_engine.load("x") == "pickled", "as DeepSpeed does it"


def test_what_others_may_have_written_is_said_and_never_unpickled(tmp_path, engine, monkeypatch):
    (tmp_path / "s1").mkdir()
    for name in ("s1/mp_rank_00_model_states.pt", "s1/metric.json"):
        (tmp_path / name).touch()
    tmp_path.chmod(0o777)
    strategy, said = object.__new__(GuardedStrategy), []
    strategy.print = said.append
    monkeypatch.setattr(strategy, "_beside", lambda folder: [], raising=False)
    monkeypatch.setattr(GuardedStrategy.__bases__[0], "load_ckpt", lambda *_, **__: ("path", {"update": 1}))
    assert strategy.load_ckpt(engine, tmp_path) == ("path", {"update": 1})
    [warning] = said
    assert f"{tmp_path} can be written by everybody" in warning
    monkeypatch.setenv(TRUSTED, "1")
    with pytest.raises(CheckpointError, match=f"{TRUSTED}=1 would run.*{tmp_path} can be written by everybody"):
        strategy.load_ckpt(engine, tmp_path)
    tmp_path.chmod(0o755)
    assert strategy.load_ckpt(engine, tmp_path) == ("path", {"update": 1}) and len(said) == 1


class Engine:
    """DeepSpeed's engine after a step: whether it was applied, what its optimizer saw, and the weights."""

    def __init__(self, applied, overflow=False, fp16=False, weight=1.0):
        self.was_step_applied = lambda: applied
        self.fp16_enabled, self.optimizer = lambda: fp16, SimpleNamespace(overflow=overflow)
        self.module = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(self.module.weight, weight)

    def step(self):
        pass


def partitioned(weight):
    engine = Engine(True)
    engine.module.weight.ds_tensor = torch.tensor([weight])
    return engine


NAN = float("nan")


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        (Engine(True), None),
        (Engine(True, weight=NAN), "weights of the actor are NaN or infinite"),
        (Engine(True, weight=float("-inf")), "weights of the actor are NaN or infinite"),
        (partitioned(0.5), None),
        (partitioned(NAN), "weights of the actor are NaN or infinite"),
        (Engine(False), None),  # in the middle of an accumulation
        (Engine(False, overflow=True), "the gradient of the actor is NaN or infinite"),
        (Engine(False, overflow=True, fp16=True), None),
    ],
)
def test_a_step_along_a_gradient_that_is_none_ends_the_run(engine, told):
    strategy = GuardedStrategy.__new__(GuardedStrategy)
    if told is None:
        strategy.optimizer_step(None, engine, None, name="actor")
        return
    with pytest.raises(NotFinite, match=told):
        strategy.optimizer_step(None, engine, None, name="actor")
