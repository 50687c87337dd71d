"""Make Triton's interpreter faster for the tests that run under it."""

from __future__ import annotations

import importlib.util
import inspect


def patch_once() -> None:
    """Replace the functions of Triton's language once per process.

    The interpreter replaces and restores them at every launch, and at every call of a device function; a kernel calls
    several in each of its blocks. This takes a third of the time of attention, and half of the time of small kernels.
    Do nothing if Triton is missing, if kernels are compiled, or if this version of Triton has no such functions.
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
