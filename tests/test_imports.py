"""What each command imports, checked in a separate process; and the import contracts."""

import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

from treechat.store import Store

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "textual", "triton")


def loaded_after(code: str, env: dict[str, str] | None = None) -> set[str]:
    """Return the heavy packages that are loaded after `code` ran."""
    program = f"{code}\nimport sys\nprint('\\nLOADED', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=env, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


@pytest.fixture
def env(tmp_path, monkeypatch):
    import os

    monkeypatch.setenv("TREECHAT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TREECHAT_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'engine'}{os.pathsep}{ROOT / 'kernels'}")
    with Store.open(tmp_path / "treechat.db") as store:
        conversation = store.create_conversation("t")
        store.add_node(conversation.id, None, "user", "hi")
    return dict(os.environ)


@pytest.mark.parametrize("command", [["--help"], ["ls"], ["show"], ["export"], ["search", "hi"], ["export", "--all"]])
def test_reading_commands_load_neither_torch_nor_transformers_nor_textual(command, env):
    code = (
        f"from treechat.cli import main\ntry:\n    main({command!r})\nexcept SystemExit as e:\n    assert not e.code, e"
    )
    assert loaded_after(code, env) == set()


def test_the_first_frame_loads_no_torch(env):
    assert "torch" not in loaded_after("import treechat.tui.app", env)
    assert "transformers" not in loaded_after("import treechat.tui.app", env)


def test_help_loads_nothing_of_ours_but_the_command_line(env):
    code = "from treechat.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
    code += "import sys\nassert 'treechat.store' not in sys.modules and 'sqlite3' not in sys.modules\n"
    assert loaded_after(code, env) == set()


def test_help_takes_little_longer_than_click_itself(env):
    def best_s(code: str) -> float:
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, check=True)
            times.append(time.perf_counter() - begun)
        return min(times)

    help_s = best_s("import sys; sys.argv = ['treechat', '--help']\nfrom treechat.cli import main; main()")
    assert help_s < 3 * best_s("import click") + 0.2


def test_imports_go_one_way():
    """Check the contracts of pyproject.toml."""
    pytest.importorskip("importlinter")
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_shows_the_committed_figures():
    made = runpy.run_path(str(ROOT / "assets" / "make_figures.py"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert made["filled"](readme) == readme, "run python assets/make_figures.py"
