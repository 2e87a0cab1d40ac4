"""`POST /v1/step_rewards` on vLLM's own server, as a `vllm.endpoint_plugins` plugin.

It stands beside vLLM's routes: listed in /docs, guarded by --api-key, errors in vLLM's format, cancelled when the
client goes away. vLLM loads it only when the environment variable VLLM_PLUGINS names it; `vllm-prm serve` sees to that.
"""

import asyncio
from argparse import Namespace
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.datastructures import State
from starlette.responses import JSONResponse
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.utils.api_utils import load_aware_call, validate_json_request, with_cancellation

from vllm_prm.errors import ContextLengthError
from vllm_prm.families import load_family
from vllm_prm.protocol import StepRewardRequest, StepRewardResponse, StepRewards, StepRewardUsage, aggregated
from vllm_prm.scorer import Scores, StepScorer, Usage

router = APIRouter()


class StepRewardsPlugin:
    """The endpoint plugin; vLLM makes one, attaches its route, then gives it the running engine."""

    name = "vllm_prm_step_rewards"
    # Any model may be served with the plugin installed; the route says so itself when the model scores no steps.
    required_tasks = ("token_classify",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the route to vLLM's app."""
        app.include_router(router)

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:
        """Build the scorer over the server's engine. A model that is no step-reward model gets no scorer."""
        state.step_scorer = None
        if engine_client is None:
            return
        model_config = engine_client.model_config
        if not model_config.architecture.endswith("ForStepReward"):
            return
        declared = model_config.hf_config.prm.get("family")
        family = load_family(model_config.model, declared, tokenizer=engine_client.get_tokenizer())
        state.step_scorer = StepScorer.from_engine(engine_client, family)


@router.post(
    "/v1/step_rewards",
    dependencies=[Depends(validate_json_request)],
    response_model=StepRewardResponse,
    responses={
        HTTPStatus.BAD_REQUEST.value: {"model": ErrorResponse},
        HTTPStatus.NOT_FOUND.value: {"model": ErrorResponse},
        HTTPStatus.INTERNAL_SERVER_ERROR.value: {"model": ErrorResponse},
    },
)
@with_cancellation
@load_aware_call
async def create_step_rewards(request: StepRewardRequest, raw_request: Request) -> Any:
    """Scores every step of every solution. Solutions are scored concurrently; one that fails fails the request."""
    state = raw_request.app.state
    scorer: StepScorer | None = state.step_scorer
    if scorer is None:
        return _error(
            "the served model scores no reasoning steps; start it with `vllm-prm serve`", "NotFoundError", 404
        )
    models = state.openai_serving_models
    if request.model is not None and not models.is_base_model(request.model):
        return _error(f"The model `{request.model}` does not exist.", "NotFoundError", 404)

    usage = Usage()
    tasks = [
        asyncio.ensure_future(
            scorer.score_async(item.asked(), item.solution_steps(), truncate=request.truncate, usage=usage)
        )
        for item in request.data
    ]
    try:
        scores: list[Scores] = await asyncio.gather(*tasks)
    except ContextLengthError as error:
        return _error(str(error), ContextLengthError.__name__, 400)
    finally:
        for task in tasks:
            task.cancel()

    return StepRewardResponse(
        model=request.model or models.base_model_paths[0].name,
        data=[
            StepRewards(index=index, step_rewards=entry, score=aggregated(entry, request.aggregate))
            for index, entry in enumerate(scores)
        ],
        usage=StepRewardUsage(
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            computed_tokens=usage.computed_tokens,
        ),
    )


def _error(message: str, kind: str, status: int) -> JSONResponse:
    error = create_error_response(message, err_type=kind, status_code=HTTPStatus(status))
    return JSONResponse(error.model_dump(), status_code=status)
