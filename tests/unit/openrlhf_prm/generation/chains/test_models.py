"""What a role is asked as its model reads it, and servers that answer, refuse, or are away."""

import asyncio
import json
import os
from types import SimpleNamespace

import httpx
import pytest
from jinja2 import TemplateError
from tiny_tokenizers import llama_3_tokenizer

from openrlhf_prm.cluster.workers import Completion
from openrlhf_prm.generation.chains.asking import Answer, Unanswered, Unreachable
from openrlhf_prm.generation.chains.models import ChatServer, LocalModel, Rendering, ServedModel, spoken
from openrlhf_prm.generation.chains.roles import Role, read_roles

CHAT = read_roles().roles["critic"]
TEXT = Role(**{**vars(CHAT), "form": "text", "stop": ["\n"]})


class Words:
    """A tokenizer of one token a word, with the chat template that it is given."""

    def __init__(self, template=None):
        self.chat_template = template

    def __call__(self, text, add_special_tokens):
        assert add_special_tokens is False
        return {"input_ids": text.split()}

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize and add_generation_prompt
        return self.chat_template(messages)


def shown(messages):
    return "".join(f"<{one['role']}>{one['content']}" for one in messages) + "<assistant>"


def refuses_system(messages):
    if messages[0]["role"] == "system":
        raise TemplateError("System role not supported")
    return shown(messages)


def drops_system(messages):
    return shown([one for one in messages if one["role"] != "system"])


@pytest.mark.parametrize(
    ("template", "expected", "said"),
    [
        (shown, "<system>S<user>P<assistant>", None),
        (refuses_system, "<user>S\n\nP<assistant>", "has a chat template without a system role"),
        (drops_system, "<user>S\n\nP<assistant>", "has a chat template without a system role"),
        (None, "S\n\nP", "has no chat template"),
    ],
)
def test_every_template_gets_the_system_message(template, expected, said):
    render = Rendering(Words(template))
    assert render("chat", "S", "P") == expected and render("text", "S", "P") == "P"
    assert render("chat", "", "P") == expected.replace("<system>S", "").replace("S\n\n", "")
    assert (render.said() or "").startswith(said or "") and bool(render.said()) == bool(said)


def test_a_real_template():
    rendered = Rendering(llama_3_tokenizer())("chat", "Be brief.", "1+1?")
    assert rendered.index("Be brief.") < rendered.index("1+1?") < rendered.rindex("assistant")


class Pool:
    def __init__(self):
        self.asked = []

    async def generate(self, prompt, **sampling):
        self.asked.append((prompt, sampling))
        return [Completion("<think>\nno\n</think> said ", [1, 2, 3], False)]


def local(context, prompt="a b c", role=TEXT):
    pool = Pool()
    answer = asyncio.run(LocalModel(pool, Words(), context).answer(role, "S", prompt, 5))
    return answer, pool.asked[0]


def test_an_answer_gets_what_the_prompt_leaves():
    answer, (prompt, sampling) = local(None)
    assert answer == Answer("said", 3, 3, False) and prompt == ["a", "b", "c"]
    assert sampling == {"temperature": 0.6, "top_p": 1.0, "max_tokens": 600, "seed": 5, "stop": ["\n"]}
    assert local(10)[1][1]["max_tokens"] == 6 and local(5)[1][1]["max_tokens"] == 1
    for context, text in ((4, "a b c"), (100, "")):
        with pytest.raises(Unanswered) as full:
            local(context, text)
        assert full.value.reason == "context_full"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a", "a"), ("<think>b</think>\n a", "a"), ("b</think>a", "a"), ("<think>b", ""), ("", ""), (" \n", "")],
)
def test_thoughts_are_no_part_of_an_answer(text, expected):
    assert spoken(text) == expected


def completion(text="hi", reason="stop"):
    message = {"text": text, "message": {"role": "assistant", "content": text}}
    return {
        "choices": [{**message, "finish_reason": reason}],
        "usage": {"completion_tokens": 2, "prompt_tokens": 9},
    }


class Servers:
    """Answers with the next of `answers`: a body, a status or an exception; the last one again and again."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []

    def __call__(self, request):
        if request.url.path == "/v1/models":
            if isinstance(self.answers[0], httpx.ConnectError):
                raise self.answers[0]
            return httpx.Response(200, json={"data": [{"id": "big"}]})
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, text="why") if isinstance(answer, int) else httpx.Response(200, json=answer)


def ask(server, role=CHAT, patience_s=30.0, name=None, **options):
    async def run():
        transport = httpx.MockTransport(server)
        served = ServedModel(
            [ChatServer("http://host/v1", patience_s, name, transport=transport, **options)], patience_s
        )
        await served.ready()
        return await served.answer(role, "S", "P", 7)

    return asyncio.run(run())


def test_chat_and_text_completions(monkeypatch):
    monkeypatch.setenv("KEY_X", "k")
    server = Servers(completion())
    assert ask(server, api_key_env="KEY_X") == Answer("hi", 2, 9, False)
    [request] = server.requests
    body = json.loads(request.content)
    assert request.url.path == "/v1/chat/completions" and request.headers["authorization"] == "Bearer k"
    assert body["messages"] == [{"role": "system", "content": "S"}, {"role": "user", "content": "P"}]
    assert (body["model"], body["seed"], body["max_tokens"]) == ("big", 7, 600) and "stop" not in body
    server = Servers(completion(reason="length"))
    assert ask(server, TEXT, name="other").truncated
    body = json.loads(server.requests[0].content)
    assert (body["prompt"], body["model"], body["stop"]) == ("P", "other", ["\n"]) and "messages" not in body
    assert ask(Servers(completion(text=None))).text == ""


def test_without_a_key_none_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = Servers(completion())
    ask(server)
    assert "authorization" not in server.requests[0].headers and "KEY_X" not in os.environ


def test_an_overloaded_server_is_asked_again(monkeypatch):
    monkeypatch.setattr("openrlhf_prm.generation.chains.models.PAUSE_S", 0.0)
    server = Servers(503, 429, httpx.ReadError("gone"), completion())
    assert ask(server).text == "hi" and len(server.requests) == 4
    with pytest.raises(RuntimeError, match="no answer for 0 s: http://host/v1: 503 why"):
        ask(Servers(503), patience_s=0.0)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (400, Unanswered, "refused: 400 why"),
        (401, RuntimeError, "refused: 401 why"),
        (404, RuntimeError, "refused: 404 why"),
        ({"choices": []}, RuntimeError, "sent no completion with its usage"),
        ({"choices": completion()["choices"]}, RuntimeError, "sent no completion with its usage"),
        (completion(reason="content_filter"), Unanswered, "content_filter"),
        (httpx.ConnectError("refused"), Unreachable, "did not answer for 0 s"),
    ],
)
def test_what_a_server_cannot_do(answer, error, text):
    with pytest.raises(error, match=text) as raised:
        ask(Servers(answer), patience_s=0.0)
    assert type(raised.value) is error


def test_the_least_busy_server_is_asked():
    async def run():
        gate, asked = asyncio.Event(), []

        def server(name):
            async def answer(role, system, prompt, seed):
                asked.append(name)
                await gate.wait()
                return name

            return SimpleNamespace(answer=answer)

        served = ServedModel([server("a"), server("b")], 1.0)
        calls = [asyncio.ensure_future(served.answer(CHAT, "", "P", 0)) for _ in range(4)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*calls)
        assert sorted(asked) == ["a", "a", "b", "b"] and served.in_flight == [0, 0]

    asyncio.run(run())
