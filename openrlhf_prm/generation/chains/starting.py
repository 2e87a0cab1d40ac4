"""The models behind the roles, started: engines that Ray places, and servers that run already."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from openrlhf_prm.cluster.context_length import model_context
from openrlhf_prm.cluster.engine_options import EngineOptions
from openrlhf_prm.generation.chains.asking import Model
from openrlhf_prm.generation.chains.roles import POLICY
from openrlhf_prm.generation.chains.task import Generation

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def started_models(task: Generation) -> Iterator[tuple[dict[str, Model], Any]]:
    """Name -> model for all that roles use, and the PRM, None without one; gone when the block ends."""
    if not task.own_engines:
        yield _served_models(task), _prm(task)
        return
    import ray

    from openrlhf_prm.cluster.session import ray_session
    from openrlhf_prm.cluster.workers import GenerationPool

    with ray_session(task.own_engines, task.paths):
        prm = _prm(task)
        models, pools = _served_models(task), []
        own = task.further_engines()
        if POLICY in task.models and not task.run.urls:
            own[POLICY] = task.run.engines
        try:
            for name, options in own.items():
                pools.append(GenerationPool(options, f"roles_{name}"))
                models[name] = _local_model(task, name, options, pools[-1])
            yield models, prm
        finally:
            for pool in pools:
                for worker in pool.workers:
                    ray.kill(worker)  # before Ray itself, which would complain about each question in flight


def _prm(task: Generation) -> Any:
    return task.prm.start() if task.critic.kind == "prm" else None


def _served_models(task: Generation) -> dict[str, Model]:
    from openrlhf_prm.generation.chains.models import ChatServer, ServedModel  # imports Ray

    servers: dict[str, list[ChatServer]] = {}
    if POLICY in task.models and task.run.urls:
        servers[POLICY] = [ChatServer(url, task.patience_s) for url in task.run.urls]
    for name in task.models:
        spec = task.book.models.get(name)
        if spec is not None and spec.urls:
            servers[name] = [ChatServer(url, task.patience_s, spec.name, spec.api_key_env) for url in spec.urls]
    return {name: ServedModel(these, task.patience_s) for name, these in servers.items()}


def _local_model(task: Generation, name: str, options: EngineOptions, pool: Any) -> Model:
    from transformers import AutoTokenizer

    from openrlhf_prm.generation.chains.models import LocalModel

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = LocalModel(pool, tokenizer, model_context(options.model, options.max_model_len))
    roles = [task.book.roles[role] for role in task.roles]
    said = model.render.said()
    if said and any(role.model == name and role.form == "chat" for role in roles):
        logger.warning(f"the model {name} ({options.model}) {said}")
    return model
