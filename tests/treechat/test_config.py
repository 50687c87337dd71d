"""config.toml: defaults, every type, and errors with the line and the nearest key."""

from pathlib import Path

import pytest

from treechat.cli.model_loading import engine_config
from treechat.config import Config, add_preset, load_config, read_value, to_toml
from treechat.errors import ConfigError
from treechat_engine import EngineConfig


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_no_file_means_all_defaults(tmp_path):
    assert load_config(tmp_path / "absent.toml") == Config()


def test_the_file_is_found_in_the_config_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("TREECHAT_CONFIG_DIR", str(tmp_path))
    write(tmp_path, 'theme = "nord"')
    assert load_config().theme == "nord"


def test_each_key_is_read_into_its_type(tmp_path):
    text = 'model = "a/b"\ndb = "~/x.db"\ntemperature = 1\ntop_k = 40\nseed = -3\n[keymap]\n"tree.next" = "n"\n'
    config = load_config(write(tmp_path, text))
    assert config.model == "a/b"
    assert config.db == Path.home() / "x.db"
    assert (config.sampling.temperature, type(config.sampling.temperature)) == (1.0, float)
    assert (config.sampling.top_k, config.seed) == (40, -3)
    assert config.keymap == {"tree.next": "n"}


def test_the_engine_gets_its_keys_and_they_are_written_as_they_are_read(tmp_path):
    text = 'device = "cpu"\nkv_tokens = 900\nhost_tokens = 5000\nmax_batch = 3\nnum_threads = 1\ndeterministic = true\n'
    config = load_config(write(tmp_path, text))
    expected = EngineConfig(
        device="cpu", kv_tokens=900, host_tokens=5000, max_batch=3, num_threads=1, deterministic=True
    )
    assert engine_config(config) == expected
    assert load_config(write(tmp_path, to_toml(config))) == config


def test_an_unknown_key_is_named_with_its_line_and_nearest_match(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, '# a comment\n\ntheme = "nord"\ntemprature = 0.5\n'))
    assert "line 4" in caught.value.message
    assert "'temprature'" in caught.value.message
    assert "'temperature'" in caught.value.hint


def test_an_unknown_table_is_named_with_its_line(tmp_path):
    with pytest.raises(ConfigError, match="line 2: unknown key 'keys'"):
        load_config(write(tmp_path, 'seed = 1\n[keys]\na = "b"\n'))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("max_tokens = true", "whole number of at least 1"),
        ("max_tokens = 0", "whole number of at least 1"),
        ('temperature = "hot"', "number of 0 or more"),
        ("temperature = nan", "number of 0 or more"),
        ("top_p = 0", "above 0"),
        ("min_p = 1.5", "from 0 to 1"),
        ('dtype = "int3"', "float32, bfloat16 or float16"),
        ("theme = 3", "a string"),
        ('deterministic = "yes"', "true or false"),
        ('keymap = "x"', "a table"),
        ("keymap = {a = 1}", "a table"),
    ],
)
def test_the_error_for_a_wrong_value_has_the_expected_form(tmp_path, line, expected):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, line))
    assert expected in caught.value.message
    assert "line 1" in caught.value.message


def test_the_error_for_invalid_toml_has_the_line(tmp_path):
    with pytest.raises(ConfigError, match="line 1"):
        load_config(write(tmp_path, "theme = nord"))


def test_a_file_of_other_bytes_is_a_config_error(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path)


def test_the_effective_configuration_reads_back_the_same(tmp_path):
    config = Config(system_prompt='Say "hi"\nand é', db=Path("/x/y.db"), seed=3, keymap={"a.b": "ctrl+j"})
    assert load_config(write(tmp_path, to_toml(config))) == config


def test_presets_are_checked_by_key_and_line(tmp_path):
    path = write(tmp_path, '[presets.short]\nmax_tokens = 9\n\n["presets"."a b"]\ntemprature = 1\n')
    with pytest.raises(ConfigError, match="line 5: unknown key 'temprature'") as caught:
        load_config(path)
    assert "'temperature'" in caught.value.hint
    with pytest.raises(ConfigError, match=r"line 3: top_p must be a number above 0"):
        load_config(write(tmp_path, "top_p = 1\n[presets.x]\ntop_p = 2\n"))
    with pytest.raises(ConfigError, match="unknown key 'theme'"):
        load_config(write(tmp_path, '[presets.x]\ntheme = "nord"\n'))


def test_presets_read_back_the_same_and_can_be_added(tmp_path):
    preset = {"temperature": 0.5, "system_prompt": 'Be "exact".\n['}
    path = write(tmp_path, to_toml(Config(presets={'it"s a.name': preset}, keymap={"a": "b"})))
    add_preset("two", {"seed": 3}, path)
    assert load_config(path).presets == {'it"s a.name': preset, "two": {"seed": 3}}
    with pytest.raises(ConfigError, match="already"):
        add_preset("two", {}, path)
    add_preset("one", {"top_k": 3}, tmp_path / "new" / "config.toml")
    assert load_config(tmp_path / "new" / "config.toml").presets == {"one": {"top_k": 3}}


@pytest.mark.parametrize(("key", "text"), [("top_k", "1.5"), ("temperature", "nan"), ("seed", ""), ("max_tokens", "0")])
def test_a_value_of_the_user_is_checked_like_the_file(key, text):
    with pytest.raises(ConfigError, match=f"{key} must be"):
        read_value(key, text)
    assert read_value("seed", " -3 ") == -3
    assert read_value("temperature", "1") == 1.0
