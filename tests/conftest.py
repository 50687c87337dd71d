"""One torch thread per test worker: OpenMP threads of several workers would spin against each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from treechat import models, paths

_CACHE_DIR = paths.cache_dir()
"""Read now, before any test sets a cache directory of its own."""


@pytest.fixture(scope="session")
def default_model() -> models.ModelFiles:
    """The default model's files, fetched and converted at the first use of all; the workers share one conversion."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREECHAT_CACHE_DIR", str(_CACHE_DIR))
        return models.resolve()
