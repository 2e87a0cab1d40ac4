import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from openrlhf_prm import patching
from openrlhf_prm.cli.patch import build_parser, main

NUMBERS = ["0001", "0002", "0003", "0004"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages folder with the released files of OpenRLHF 0.11.2 that the patches change."""
    installation = patching.find_installation()
    _, released = patching.read_state(installation)
    for file, text in released.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    metadata = tmp_path / "openrlhf-0.11.2.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: openrlhf\nVersion: 0.11.2\n")
    return tmp_path


def run(site: Path, *arguments: str) -> int:
    return main([*arguments, "--site_packages", str(site)])


def content(site: Path) -> dict[str, bytes]:
    return {str(path.relative_to(site)): path.read_bytes() for path in site.rglob("*") if path.is_file()}


def test_the_installed_openrlhf_is_patched():
    assert main(["check"]) == 0


def test_released_files_have_the_recorded_hashes(site):
    sums = json.loads((patching.patches_folder() / "0.11.2" / "SHA256SUMS.json").read_text())
    touched = {file for patch in patching.load_patches("0.11.2") for file in patch.hunks}
    assert touched == set(sums)
    for file, expected in sums.items():
        assert hashlib.sha256((site / file).read_bytes()).hexdigest() == expected


def test_apply_then_revert_gives_back_the_same_bytes(site, capsys):
    before = content(site)
    assert run(site, "check") == 1
    assert run(site, "apply") == 0
    assert run(site, "check") == 0
    assert content(site).keys() == before.keys()
    assert "torch.cuda.current_device()" not in (site / "openrlhf/trainer/ray/ppo_actor.py").read_text()
    for file in before:
        if file.endswith(".py"):
            compile((site / file).read_text(), file, "exec")
    assert run(site, "revert") == 0
    assert content(site) == before
    assert "0003  reverted" in capsys.readouterr().out


def test_repeating_a_command_changes_nothing(site, capsys):
    run(site, "apply")
    once = content(site)
    assert run(site, "apply") == 0
    assert content(site) == once
    assert "already applied" in capsys.readouterr().out
    run(site, "revert")
    assert run(site, "revert") == 0
    assert "not applied" in capsys.readouterr().out


def test_a_part_of_the_patches(site):
    assert run(site, "apply", "--only", "0003") == 0
    assert run(site, "check", "--only", "0003") == 0
    assert run(site, "check") == 1
    assert run(site, "apply") == 0
    whole = content(site)
    assert run(site, "revert", "--only", "0003") == 0
    assert run(site, "check", "--only", "0001", "0002", "0004") == 0
    assert run(site, "check", "--only", "0003") == 1
    run(site, "apply")
    assert content(site) == whole


@pytest.mark.parametrize("patched", [False, True])
def test_a_file_changed_by_other_hands_is_refused(site, capsys, patched):
    if patched:
        run(site, "apply")
    changed = site / "openrlhf/trainer/ppo_trainer.py"
    changed.write_text(changed.read_text() + "# mine\n")
    before = content(site)
    capsys.readouterr()
    for command in ("apply", "revert", "check"):
        assert run(site, command) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "ppo_trainer.py was changed locally" in error
    assert content(site) == before


def test_a_missing_file_is_refused(site, capsys):
    (site / "openrlhf/trainer/ppo_trainer.py").unlink()
    assert run(site, "apply") == 2
    assert "ppo_trainer.py is missing" in capsys.readouterr().err


def test_a_patch_that_is_in_some_of_its_files_only_is_refused(site, capsys):
    released = content(site)
    run(site, "apply")
    half = site / "openrlhf/cli/train_ppo_ray.py"
    half.write_bytes(released["openrlhf/cli/train_ppo_ray.py"])
    before = content(site)
    assert run(site, "apply") == 2
    assert "patch 0001 is missing from openrlhf/cli/train_ppo_ray.py" in capsys.readouterr().err
    assert content(site) == before


def test_another_version_is_refused(site, capsys):
    (site / "openrlhf-0.11.2.dist-info").rename(site / "openrlhf-0.12.0.dist-info")
    metadata = site / "openrlhf-0.12.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("0.11.2", "0.12.0"))
    before = content(site)
    assert run(site, "apply") == 2
    assert capsys.readouterr().err == (
        "error: OpenRLHF 0.12.0 is installed, the patches are for 0.11.2: pip install --no-deps openrlhf==0.11.2\n"
    )
    assert content(site) == before


def test_no_openrlhf(tmp_path, capsys):
    assert run(tmp_path, "apply") == 2
    assert "OpenRLHF is not installed" in capsys.readouterr().err


def test_an_unknown_number_is_refused(site, capsys):
    assert run(site, "apply", "--only", "0009") == 2
    assert "there is no patch 0009: 0001, 0002, 0003" in capsys.readouterr().err


def test_a_hunk_that_does_not_fit_changes_nothing(site, capsys):
    before = content(site)
    assert run(site, "apply", "--only", "0002") == 2  # its lines come from 0001
    assert "patch 0002 does not fit" in capsys.readouterr().err
    assert content(site) == before


def test_a_hunk_is_exact():
    hunks = [patching.Hunk(2, ("b", "c"), 2, ("B",)), patching.Hunk(5, ("e",), 4, ("E", "F"))]
    assert patching.patch_text("a\nb\nc\nd\ne\n", hunks) == "a\nB\nd\nE\nF\n"
    assert patching.patch_text("a\nB\nd\nE\nF\n", hunks, reverse=True) == "a\nb\nc\nd\ne\n"
    # Lines that another patch moved are found; not where they stand twice.
    assert patching.patch_text("x\na\nb\nc\nd\ne\n", hunks) == "x\na\nB\nd\nE\nF\n"
    assert patching.patch_text("x\na\nb\nc\nd\ne\nb\nc\n", hunks) is None


@pytest.mark.parametrize(
    "text", ["T\n--- a/x\n+++ b/x\n@@ -1,2 +1,1 @@\n a\n", "T\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\njunk\n"]
)
def test_a_damaged_patch_is_refused(text):
    with pytest.raises(ValueError, match="patch 0009 is damaged at line"):
        patching.parse_patch("0009", text)


def test_every_patch_says_why():
    for patch in patching.load_patches("0.11.2"):
        file = next((patching.patches_folder() / "0.11.2").glob(f"{patch.number}-*.patch"))
        heading = file.read_text().split("--- a/")[0]
        assert all(word in heading for word in ("Cause:", "Does:", "Upstream: https://github.com/OpenRLHF/OpenRLHF/"))
    assert [patch.number for patch in patching.load_patches("0.11.2")] == NUMBERS


def test_the_help_lists_what_lies_in_the_folder(monkeypatch, tmp_path):
    """Number and title of every patch, of as many versions as there are."""
    for version, numbers in (("0.11.2", ["0001", "0005"]), ("0.12.0", ["0001"])):
        (tmp_path / version).mkdir()
        for number in numbers:
            text = f"Title {number} of {version}, 100% new.\n\nCause: none.\n"
            (tmp_path / version / f"{number}-x.patch").write_text(text)
    shown = build_parser().format_help()
    for patch in patching.load_patches("0.11.2"):
        assert f"{patch.number}  {patch.title}" in shown
    monkeypatch.setattr(patching, "patches_folder", lambda: tmp_path)
    shown = build_parser().format_help()
    assert "0005  Title 0005 of 0.11.2, 100% new." in shown and "OpenRLHF 0.12.0:\n  0001  Title 0001 of" in shown


def test_importing_it_is_light():
    code = "import sys, openrlhf_prm.cli.patch; sys.exit('torch' in sys.modules or 'openrlhf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
