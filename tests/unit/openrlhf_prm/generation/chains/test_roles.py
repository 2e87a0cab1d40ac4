"""The file of roles: the default one, one's own over it, and every mistake in it by name."""

import pytest

from openrlhf_prm.generation.chains.roles import DEFAULT_FILE, PHRASES, PLACEHOLDERS, filled, read_roles


def given(tmp_path, text):
    path = tmp_path / "roles.yaml"
    path.write_text(text)
    return path


def test_the_default_file_is_whole():
    book = read_roles()
    assert set(book.roles) == set(PLACEHOLDERS) and set(book.phrases) == set(PHRASES)
    assert book.roles["planner"].sampling(7) == {"temperature": 0.7, "top_p": 1.0, "max_tokens": 600, "seed": 7}
    assert "\\boxed{...}" in book.roles["elaborator"].prompt and book.separator == "\n\n"


def test_the_default_file_given_as_ones_own_is_the_default(tmp_path):
    assert read_roles(given(tmp_path, DEFAULT_FILE.read_text())) == read_roles()
    assert read_roles(given(tmp_path, "")) == read_roles()


def test_what_a_file_leaves_out_keeps_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    text = """
    models:
      judge: {urls: ["http://a/v1"], name: big, api_key_env: JUDGE_KEY}
      large: {checkpoint: /models/large, num_engines: 2, tensor_parallel_size: 4}
    roles:
      critic: {model: judge, temperature: 0}
      elaborator: {prompt: "{question}{steps}", form: text, stop: ["\\n"]}
    separator: "\\n"
    """
    book = read_roles(given(tmp_path, text))
    assert book.roles["critic"].model == "judge" and book.roles["critic"].temperature == 0
    assert book.roles["critic"].prompt == read_roles().roles["critic"].prompt
    assert book.roles["elaborator"].sampling(1)["stop"] == ["\n"] and book.separator == "\n"
    assert book.models["large"].engines.num_engines == 2 and book.models["judge"].urls == ("http://a/v1",)
    assert "secret" not in repr(book)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "not YAML"),
        ("- a", "the file must be a mapping"),
        ("role: {}", "unknown entry 'role'; there are models, roles, separator, phrases"),
        ("roles: {singer: {}}", "unknown entry 'singer'; there are planner"),
        ("roles: {critic: {modle: a}}", "roles.critic: unknown entry 'modle'; there are model"),
        ("roles: {critic: {model: judge}}", "roles.critic.model: there is no model 'judge'; there are policy"),
        ("roles: {critic: {model: null}}", "roles.critic has no model"),
        ("roles: {critic: 3}", "roles.critic must be a mapping"),
        ("roles: {critic: {form: html}}", "roles.critic.form must be chat or text"),
        ("roles: {critic: {temperature: -1}}", "roles.critic.temperature must be a number in 0..100, got -1"),
        ("roles: {critic: {top_p: 0}}", "roles.critic.top_p must be"),
        ("roles: {critic: {max_tokens: 1.5}}", "roles.critic.max_tokens must be a whole number"),
        ("roles: {critic: {max_tokens: true}}", "roles.critic.max_tokens must be a whole number"),
        ("roles: {critic: {stop: x}}", "roles.critic.stop must be a list of texts"),
        ("roles: {critic: {prompt: '{question}'}}", "roles.critic.prompt must contain {numbered}"),
        ("roles: {critic: {prompt: '{question}{numbered}{label}'}}", "no prompt may show the reference answer"),
        (
            "roles: {critic: {prompt: '{question}{numbered}{steps}'}}",
            "unknown {steps}; there are {question}, {numbered}",
        ),
        ("roles: {critic: {system: 'For {question}'}}", "roles.critic.system: unknown {question}; there are none"),
        ("separator: ''", "separator must not be empty"),
        ("separator: 3", "separator must be a text"),
        ("phrases: {hello: [a]}", "unknown entry 'hello'"),
        ("phrases: {doubt: []}", "phrases.doubt must be a list of texts"),
        ("phrases: {back: [a]}", "phrases.back must contain {step}"),
        ("phrases: {doubt: ['{step}']}", "phrases.doubt: unknown {step}; there are {reason}"),
        ("models: {policy: {checkpoint: a}}", "models.policy is --actor.model_name_or_path"),
        ("models: {a: {}}", "models.a must have either a checkpoint or urls"),
        ("models: {a: {checkpoint: b, name: c}}", "models.a.name is of servers"),
        ("models: {a: {checkpoint: b, num_engines: 0}}", "models.a.num_engines must be at least 1"),
        ("models: {a: {urls: [x]}}", "models.a.urls must begin with http"),
        ("models: {a: {urls: []}}", "models.a.urls must be a list of addresses"),
        ("models: {a: {urls: ['http://b'], num_engines: 2}}", "models.a.num_engines is of our own engines"),
        ("models: {a: {urls: ['http://b'], api_key_env: NOT_SET_X}}", "variable NOT_SET_X is not set"),
        ("models: {a: {checkpoint: b, engines: 2}}", "models.a: unknown entry 'engines'"),
    ],
)
def test_mistakes_are_named(tmp_path, text, expected):
    with pytest.raises(ValueError) as error:
        read_roles(given(tmp_path, text))
    assert expected in str(error.value) and "roles.yaml" in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        read_roles(tmp_path / "absent.yaml")


def test_nothing_in_a_file_is_run(tmp_path):
    with pytest.raises(ValueError, match="not YAML"):
        read_roles(given(tmp_path, "separator: !!python/object/apply:os.getcwd []"))


def test_values_are_filled_in_once():
    assert filled("{a} {{a}} {b}", {"a": "{b}", "b": "x{{a}}"}) == "{b} {a} x{{a}}"
    assert filled(r"\frac{1}{2} \boxed{...}", {}) == r"\frac{1}{2} \boxed{...}"
