"""Makes Triton's interpreter faster for the tests that run under it."""

from __future__ import annotations

import importlib.util
import inspect


def patch_once() -> None:
    """Has the interpreter replace the functions of Triton's language once per process.

    It does so at every launch, puts them back, and again at every call of a device function, of which a kernel has
    several in each of its blocks: a third of the time of attention, half of that of small kernels. Does nothing where
    there is no Triton, where kernels are compiled, and with a Triton that is made in another way.
    """
    if importlib.util.find_spec("triton") is None:
        return
    import triton
    import triton.language as tl
    from triton.runtime import interpreter

    if not triton.knobs.runtime.interpret or not hasattr(interpreter, "_LangPatchScope"):
        return
    replace = interpreter._patch_lang
    done: set[frozenset[str]] = set()

    def patch(fn):
        modules = [value for value in fn.__globals__.values() if inspect.ismodule(value)]
        seen = frozenset(module.__name__ for module in modules if module in (tl, tl.core))
        if seen not in done:
            done.add(seen)
            replace(fn)
        return interpreter._LangPatchScope()

    interpreter._patch_lang = patch
