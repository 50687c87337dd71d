"""Set up the process of each test worker: one torch thread, a small heap for the garbage collector.

OpenMP threads of several workers would spin against each other.
"""

import gc
import os
import shutil

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Triton reads this when it is imported. Without a GPU its kernels are interpreted.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest

LONGEST = (
    "test_fifteen_tasks",
    "test_the_largest_variants_fit_their_chips",
    "test_each_command_of_the_palette_does_something",
    "test_each_key_does_something_in_its_place",
    "test_a_thousand_turns_deep_open_at_their_end_and_scroll_to_the_first",
)
_CACHE_DIR = os.environ.get("TREECHAT_CACHE_DIR")
"""Read at import, before any test sets another cache directory."""


@pytest.fixture(scope="module", autouse=True)
def small_heap():
    """Make the garbage collector skip the objects of imported modules: a full collection visits a million of them."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()


def pytest_collection_modifyitems(items):
    """Run the longest tests first. At the end of the run, one worker would execute them while the others are idle."""
    items.sort(key=lambda item: getattr(item, "originalname", item.name) not in LONGEST)


@pytest.fixture(scope="session")
def default_model():
    """Return the default model's files. The first use fetches and converts them; all workers share one conversion."""
    # Imported here, since the tests of engine and kernels also run without the app's libraries.
    from treechat import models

    with pytest.MonkeyPatch.context() as patch:
        if _CACHE_DIR is None:
            patch.delenv("TREECHAT_CACHE_DIR", raising=False)
        else:
            patch.setenv("TREECHAT_CACHE_DIR", _CACHE_DIR)
        return models.resolve()
