"""`POST /v1/step_rewards` on vLLM's own server, as a `vllm.endpoint_plugins` plugin.

It stands beside vLLM's routes: listed in /docs, guarded by --api-key, errors in vLLM's format, counted in /metrics,
cancelled when the client goes away. vLLM loads it only when the environment variable VLLM_PLUGINS names it; `vllm-prm
serve` sees to that.
"""

import asyncio
import os
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import vllm.envs as envs
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import State
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.launchers.launcher import watchdog_loop
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware
from vllm.entrypoints.serve.utils.api_utils import load_aware_call, validate_json_request, with_cancellation
from vllm.logger import init_logger

from vllm_prm.aggregation import require_aggregation
from vllm_prm.checkpoint import family_in_engine
from vllm_prm.engine_death import fail_with
from vllm_prm.errors import ContextLengthError
from vllm_prm.limits import Limits
from vllm_prm.metrics import StepRewardMetrics
from vllm_prm.plain_requests import refuse_plain_requests
from vllm_prm.protocol import (
    CritiquedStepRewards,
    CritiqueUsage,
    StepRewardRequest,
    StepRewardResponse,
    StepRewards,
    StepRewardUsage,
    aggregated,
)
from vllm_prm.scorer import StepScorer, Usage

logger = init_logger("vllm.vllm_prm.endpoint")


@dataclass(frozen=True)
class StepRewardState:
    """What the route needs of the running server; `scorer` is None for a model that scores no steps."""

    scorer: StepScorer | None
    limits: Limits
    metrics: StepRewardMetrics


class StepRewardRoute(APIRoute):
    """Around the route: the body's limit, before anything is parsed, and the metrics, refused requests included."""

    def get_route_handler(self) -> Callable:
        """FastAPI's handler of the route, wrapped."""
        handle = super().get_route_handler()

        async def measured(request: Request) -> Response:
            state: StepRewardState = request.app.state.step_rewards
            request.state.received_at = time.perf_counter()
            state.metrics.received()
            try:
                response = await handle(
                    Request(request.scope, _limited(request.receive, _announced(request), state.limits.max_bytes))
                )
            except Exception as error:
                state.metrics.failed(_status(error))
                if isinstance(error, StarletteHTTPException):
                    # vLLM formats FastAPI's subclass only; FastAPI itself raises Starlette's for a body it cannot read.
                    raise HTTPException(error.status_code, error.detail) from error
                raise
            if response.status_code >= 400:
                state.metrics.failed(response.status_code)
            return response

        return measured


def _announced(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _limited(receive: Receive, announced: int, max_bytes: int) -> Receive:
    """`receive` that refuses a body beyond `max_bytes`: at once if its length says so, else while it arrives."""
    got = 0

    async def limited() -> Message:
        nonlocal got
        if announced <= max_bytes:
            message = await receive()
            got += len(message.get("body", b""))
            if got <= max_bytes:
                return message
        raise HTTPException(413, f"the request body is larger than {max_bytes} bytes (--max-bytes)")

    return limited


def _status(error: Exception) -> int:
    if isinstance(error, StarletteHTTPException):
        return error.status_code
    return 400 if isinstance(error, RequestValidationError) else create_error_response(error).error.code


router = APIRouter(route_class=StepRewardRoute)


class StepRewardsPlugin:
    """The endpoint plugin; vLLM makes one, attaches its route, then gives it the running engine."""

    name = "vllm_prm_step_rewards"
    # Any model may be served with the plugin installed; the route says so itself when the model scores no steps.
    required_tasks = ("token_classify", "generate")

    def attach_router(self, app: FastAPI) -> None:
        """Add the route to vLLM's app, and put what vLLM leaves open behind the API key."""
        app.include_router(router)
        if tokens := [key for key in (app.state.args.api_key or [envs.VLLM_API_KEY]) if key]:
            app.add_middleware(EngineAuthentication, tokens=tokens)

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:
        """Build the scorer over the server's engine. A model that is no step-reward model gets no scorer."""
        limits = Limits.from_environment(os.environ)
        scorer = family = None
        if engine_client is not None:
            family = family_in_engine(engine_client.model_config, engine_client.get_tokenizer())
        if family is not None:
            scorer = StepScorer.from_engine(
                engine_client,
                family,
                score_cache_size=_score_cache_size(limits, engine_client),
                engine_args=AsyncEngineArgs.from_cli_args(args),
            )
            if family.runner == "pooling":
                refuse_plain_requests(engine_client)
            for client in scorer.engine.clients():
                fail_with(client)
                if client is not engine_client:
                    state.step_rewards_watch = asyncio.ensure_future(_end_with(client, state))
        name = args.served_model_name[0] if args.served_model_name else args.model
        state.step_rewards = StepRewardState(scorer, limits, StepRewardMetrics(name))


async def _end_with(client: EngineClient, state: State) -> None:
    """End the server when the engine `client` died, as vLLM does for its own engine."""
    while not hasattr(state, "server"):  # vLLM sets it when it begins to listen
        await asyncio.sleep(1)
    await watchdog_loop(state.server, client)


def _score_cache_size(limits: Limits, engine_client: EngineClient) -> int:
    # A weight update reaches one API server process; the others would go on answering from the old scores.
    processes = engine_client.vllm_config.parallel_config._api_process_count
    if processes > 1 and envs.VLLM_SERVER_DEV_MODE and limits.score_cache_size:
        logger.warning(
            "VLLM_SERVER_DEV_MODE lets clients change the weights, and only one of %d API server processes would "
            "notice: step scores are not remembered. Use --api-server-count 1 to remember them.",
            processes,
        )
        return 0
    return limits.score_cache_size


class EngineAuthentication(AuthenticationMiddleware):
    """vLLM asks for the API key below /v1 and a few other paths. Others reach the same engine, or change its weights
    where VLLM_SERVER_DEV_MODE is set, so all need it but those that only say how the server is.
    """

    OPEN = frozenset(("/health", "/ping", "/load", "/version", "/metrics", "/docs", "/redoc", "/openapi.json"))

    def __call__(self, scope, receive, send):
        """Pass the request on, or answer 401 as vLLM does."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        guarded = scope["type"] == "http" and scope["method"] != "OPTIONS" and path.rstrip("/") not in self.OPEN
        if guarded and not self.verify_token(Request(scope).headers):
            return JSONResponse({"error": "Unauthorized"}, status_code=401)(scope, receive, send)
        return self.app(scope, receive, send)


@router.post(
    "/v1/step_rewards",
    dependencies=[Depends(validate_json_request)],
    response_model=None,
    responses={
        HTTPStatus.OK.value: {"model": StepRewardResponse},
        HTTPStatus.BAD_REQUEST.value: {"model": ErrorResponse},
        HTTPStatus.UNAUTHORIZED.value: {"description": "wrong or missing API key"},
        HTTPStatus.NOT_FOUND.value: {"model": ErrorResponse},
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value: {"model": ErrorResponse},
        HTTPStatus.INTERNAL_SERVER_ERROR.value: {"model": ErrorResponse},
    },
)
@with_cancellation
@load_aware_call
async def create_step_rewards(request: StepRewardRequest, raw_request: Request) -> Any:
    """Scores every step of every solution. Solutions are scored concurrently; one that fails fails the request."""
    state: StepRewardState = raw_request.app.state.step_rewards
    scorer = state.scorer
    if scorer is None:
        return _error(
            "the served model scores no reasoning steps; start it with `vllm-prm serve`", "NotFoundError", 404
        )
    models = raw_request.app.state.openai_serving_models
    if request.model is not None and not models.is_base_model(request.model):
        return _error(f"The model `{request.model}` does not exist.", "NotFoundError", 404)
    try:
        state.limits.check(request, scorer.family.response_splitter)
        require_aggregation(request.aggregate, scorer.family.score_range)
    except ValueError as error:
        return _error(str(error), "BadRequestError", 400)

    usage = Usage()
    tasks = [
        asyncio.ensure_future(
            scorer.output_fields_async(
                item.asked(),
                item.solution_steps(scorer.family.response_splitter),
                truncate=request.truncate,
                usage=usage,
            )
        )
        for item in request.data
    ]
    try:
        answers: list[dict[str, Any]] = await asyncio.gather(*tasks)
    except ContextLengthError as error:
        return _error(str(error), ContextLengthError.__name__, 400)
    except asyncio.CancelledError:
        state.metrics.cancelled()
        raise
    finally:
        for task in tasks:
            task.cancel()
        # An error holds the frames it came through, and this one holds the task that holds the error: a refused
        # solution would stay in memory until the collector runs.
        tasks.clear()
        state.metrics.scored(usage)

    critiqued = scorer.family.runner == "generate"
    entry_class, usage_class = (CritiquedStepRewards, CritiqueUsage) if critiqued else (StepRewards, StepRewardUsage)
    counts = {name: getattr(usage, name) for name in usage_class.model_fields}
    response = StepRewardResponse(
        model=request.model or models.base_model_paths[0].name,
        data=[
            entry_class(index=index, score=aggregated(answer["step_rewards"], request.aggregate), **answer)
            for index, answer in enumerate(answers)
        ],
        usage=usage_class(**counts) if request.return_usage else None,
    )
    content = response.model_dump_json()
    state.metrics.answered(time.perf_counter() - raw_request.state.received_at)
    return Response(content, media_type="application/json")


def _error(message: str, kind: str, status: int) -> JSONResponse:
    error = create_error_response(message, err_type=kind, status_code=HTTPStatus(status))
    return JSONResponse(error.model_dump(), status_code=status)
