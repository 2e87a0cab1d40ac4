"""Which server of several gets a solution. The servers here answer when they are told to."""

import asyncio
from types import SimpleNamespace

import pytest

from openrlhf_prm.cluster import remote_scorer
from openrlhf_prm.cluster.engine_options import ServerFlags
from openrlhf_prm.cluster.remote_scorer import RemoteScorer, check_servers
from vllm_prm.errors import ContextLengthError, ServiceUnavailableError


class Server:
    """Scores every step with its number, once it is released; one with an `error` raises it."""

    def __init__(self, number: int, error: Exception | None = None):
        self.number, self.error = number, error
        self.asked = 0
        self.release = asyncio.Event()

    async def score_async(self, question, steps, truncate):
        self.asked += 1
        if self.error is not None:
            raise self.error
        await self.release.wait()
        return [float(self.number)] * len(steps)


def scorer_of(*servers: Server, patience_s: float = 0.0) -> RemoteScorer:
    urls = tuple(f"http://{server.number}" for server in servers)
    scorer = RemoteScorer(ServerFlags(url=urls, patience_s=patience_s))
    scorer._clients = list(servers)
    return scorer


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_solution_goes_where_the_fewest_are_in_flight():
    async def play():
        slow, quick = Server(0), Server(1)
        scorer = scorer_of(slow, quick)
        first = [asyncio.ensure_future(scorer.score("q", ["a"])) for _ in range(2)]
        await turns()
        assert (slow.asked, quick.asked) == (1, 1)
        quick.release.set()
        await turns()
        for _ in range(5):
            assert await scorer.score("q", ["a"]) == [1.0]
        assert (slow.asked, quick.asked) == (1, 6)
        slow.release.set()
        assert sorted(await asyncio.gather(*first)) == [[0.0], [1.0]] and scorer.in_flight == [0, 0]

    asyncio.run(play())


def test_servers_that_are_equally_busy_share_the_first_solutions_of_many_processes():
    async def first_choice() -> int:
        servers = [Server(0), Server(1)]
        for server in servers:
            server.release.set()
        [score] = await scorer_of(*servers).score("q", ["a"])
        return int(score)

    async def play():
        return {await first_choice() for _ in range(200)}

    assert asyncio.run(play()) == {0, 1}


def test_an_unreachable_server_rests_and_the_others_answer(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(remote_scorer.time, "monotonic", lambda: now[0])

    async def play():
        away, there = Server(0, ServiceUnavailableError("away")), Server(1)
        there.release.set()
        scorer = scorer_of(away, there)
        for _ in range(50):
            assert await scorer.score("q", ["a"]) == [1.0]
        assert away.asked == 1
        now[0], away.error = remote_scorer.REST_S, None
        away.release.set()
        assert {(await scorer.score("q", ["a"]))[0] for _ in range(200)} == {0.0, 1.0}

    asyncio.run(play())


def test_where_no_server_answers_the_last_ones_error_is_raised_and_a_solutions_own_at_once():
    async def play():
        servers = [Server(number, ServiceUnavailableError(str(number))) for number in range(3)]
        with pytest.raises(ServiceUnavailableError):
            await scorer_of(*servers).score("q", ["a"])
        assert [server.asked for server in servers] == [1, 1, 1]
        servers = [Server(number, ContextLengthError("too long")) for number in range(3)]
        with pytest.raises(ContextLengthError):
            await scorer_of(*servers).score("q", ["a"])
        assert sum(server.asked for server in servers) == 1

    asyncio.run(play())


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]

    async def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(remote_scorer.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(remote_scorer, "asyncio", SimpleNamespace(sleep=sleep))
    return now


def test_all_may_be_away_as_long_as_patience_lasts(clock):
    async def play():
        servers = [Server(number, ServiceUnavailableError("away")) for number in range(2)]
        with pytest.raises(ServiceUnavailableError):
            await scorer_of(*servers, patience_s=60.0).score("q", ["a"])
        assert servers[0].asked == servers[1].asked == 60 / remote_scorer.PAUSE_S + 1

    asyncio.run(play())


def test_one_server_is_waited_for_by_its_client_alone(clock):
    async def play():
        server = Server(0, ServiceUnavailableError("away"))
        with pytest.raises(ServiceUnavailableError):
            await scorer_of(server, patience_s=60.0).score("q", ["a"])
        assert server.asked == 1

    asyncio.run(play())
    remote = RemoteScorer(ServerFlags(url=("http://127.0.0.1:1",), patience_s=7.0, answer_s=3.0))
    assert (remote._client(0).engine.patience, remote._client(0).engine.timeout) == (7.0, 3.0)
    remote = RemoteScorer(ServerFlags(url=("http://127.0.0.1:1", "http://127.0.0.1:2")))
    assert remote._client(0).engine.patience == 0.0


def test_flags_of_servers(monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_KEY", "secret")
    monkeypatch.setenv("TORN_KEY", "hunter2\nhunter2")
    monkeypatch.setenv("LOST_KEY_FILE", str(tmp_path / "gone"))
    (tmp_path / "key").write_text("secret\n")
    monkeypatch.setenv("KEPT_KEY_FILE", str(tmp_path / "key"))
    check_servers(ServerFlags(url=("http://a",), api_key_env="KEPT_KEY"), None)
    check_servers(ServerFlags(url=("http://a", "https://b"), api_key_env="SOME_KEY"), None)
    for servers, model, message in (
        (ServerFlags(url=("http://a", "b:8000")), None, "--prm.url must begin with http"),
        (ServerFlags(url=("http://a",)), "prm", "exclude each other"),
        (ServerFlags(url=("http://a",), api_key_env="NO_SUCH_KEY"), None, "variable NO_SUCH_KEY is not set"),
        (ServerFlags(url=("http://a",), api_key_env="TORN_KEY"), None, "^--prm.api_key_env: [^2]*$"),
        (ServerFlags(url=("http://a",), api_key_env="LOST_KEY"), None, "gone .LOST_KEY_FILE. cannot be read"),
        (ServerFlags(patience_s=5.0), None, "--prm.patience_s needs --prm.url"),
        (ServerFlags(api_key_env="SOME_KEY"), None, "--prm.api_key_env needs --prm.url"),
    ):
        with pytest.raises(ValueError, match=message):
            check_servers(servers, model)
