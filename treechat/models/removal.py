"""Remove models that treechat fetched or converted."""

from __future__ import annotations

from treechat.errors import ModelError
from treechat.models import hub, registry
from treechat.models.files import InstalledModel


def remove(name: str) -> int:
    """Delete the installed model of that name or path; returns the bytes freed. Raises ModelError if there is none."""
    installed = registry.installed()
    matches = [model for model in installed if name in (model.name, model.path.name, str(model.path))]
    if not matches:
        names = ", ".join(model.name for model in installed) or "none"
        raise ModelError(f"no installed model is called {name}", f"Installed: {names}")
    return sum(_remove_one(model) for model in matches)


def _remove_one(model: InstalledModel) -> int:
    with registry.disk_errors(f"{model.name} cannot be removed"):
        if model.path.parent == registry.models_dir():
            registry.delete_directory(model.path)
            return model.size_bytes
        freed = hub.delete_snapshot(model.path)
        registry.delete_record(model.source)
        return freed
