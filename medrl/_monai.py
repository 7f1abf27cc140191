"""Loading MONAI by parts.

``import monai`` loads every module of MONAI, which takes a processor three seconds; medrl needs a
dozen of them. Importing medrl leaves a finder behind that catches the first import of MONAI: then
its ``__init__`` runs without the walk through all modules, and its packages ``apps``, ``data`` and
``transforms`` stay empty but for what medrl imports from inside of them.

Nothing changes for others: the first use of anything else (a name that ``monai`` or one of these
packages does not have yet, or a module that is not loaded yet) runs what was left out, in MONAI's
own order. A MONAI that was imported earlier is left alone, and one that cannot be loaded by parts,
such as a later edition, is loaded whole.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Sequence
from functools import wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec, spec_from_loader
from threading import RLock
from types import ModuleType
from typing import Any

#: Packages whose `__init__` loads much of MONAI, in the order in which MONAI begins them.
_PACKAGES = ("monai.apps", "monai.data", "monai.transforms")
#: What medrl uses.
_NEEDED = (
    "monai.data.meta_tensor",
    "monai.transforms.compose",
    "monai.transforms.inverse",
    "monai.transforms.lazy.dictionary",
)
#: What those parts import, if it is installed, for functions that few call.
_DEFERRED = ("pandas",)
_lock = RLock()
_running: list[ModuleType] = []


def load_by_parts() -> None:
    """Have MONAI load by parts, from its first import on."""
    if "monai" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Incomplete(ModuleType):
    """A package that is completed when it is asked for something it does not have yet."""

    def __getattr__(self, name: str) -> Any:
        # Tools probe all modules for names such as __wrapped__.
        if not name.startswith("__") or name == "__all__":
            _complete(self)
            if name in vars(self):
                return vars(self)[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        _complete(self)
        return sorted(vars(self))


def _complete(package: ModuleType) -> None:
    """Run what was left out: all of it, or while that goes on, the package that is asked for."""
    with _lock:
        if not _running:
            package = sys.modules["monai"]
        if not isinstance(package, _Incomplete) or package in _running:
            return
        _running.append(package)
        try:
            if package.__name__ != "monai":
                _loader_of(package).exec_module(package)
            else:
                for name in _PACKAGES:
                    _complete(sys.modules[name])
                walk = import_module("monai.utils.module").load_submodules
                for modules_too in (False, True):
                    walk(package, modules_too, exclude_pattern=package.excludes)
            package.__class__ = ModuleType  # type: ignore[assignment]
        finally:
            _running.remove(package)


def _loader_of(module: ModuleType) -> Loader:
    if module.__spec__ is None or module.__spec__.loader is None:
        raise ImportError(f"{module.__name__} has no loader")
    return module.__spec__.loader


class _Deferred:
    """Stands for a module, or a class in it, until it is used."""

    def __init__(self, module: str, name: str | None) -> None:
        self._place = module, name

    def _load(self) -> Any:
        module, name = self._place
        return getattr(import_module(module), name) if name else import_module(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._load(), name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._load()(*args, **options)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self._load())


class _Finder(MetaPathFinder):
    """Gives MONAI another loader, and completes it before further modules of it are loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in _LOADERS and not isinstance(sys.modules.get("monai"), _Incomplete):
            spec = PathFinder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _LOADERS[fullname](spec.loader)
            return spec
        if fullname.startswith("monai.") and isinstance(sys.modules["monai"], _Incomplete):
            _complete(sys.modules["monai"])
            if fullname in sys.modules and not _running:
                module = sys.modules[fullname]
                # The import system prefers a module's own spec to what a finder returns.
                module.__spec__ = spec_from_loader(fullname, _Loaded(module))
                return module.__spec__
        return None


class _Loaded(Loader):
    """Gives the import system a module that has been loaded since it began to look for it."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _Around(Loader):
    """Does something before or after what a module's own loader does."""

    def __init__(self, own: Loader) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__loader__ = module.__spec__.loader = self._own
        self.run(module)

    @abstractmethod
    def run(self, module: ModuleType) -> None:
        """Execute the module."""


class _ToolsLoader(_Around):
    """Of the module with the walk and the optional imports: the first is left out for now."""

    def run(self, module: ModuleType) -> None:
        self._own.exec_module(module)
        tools = vars(module)
        tools["left_out"] = tools["load_submodules"]
        tools["load_submodules"] = lambda *_, **__: ([], [])
        optional_import = tools["optional_import"]

        def optional_or_later(module: str, *args: Any, **options: Any) -> tuple[Any, bool]:
            if module in _DEFERRED and not args and set(options) <= {"name"} and find_spec(module):
                return _Deferred(module, options.get("name")), True
            found: tuple[Any, bool] = optional_import(module, *args, **options)
            return found

        tools["optional_import"] = wraps(optional_import)(optional_or_later)


class _MonaiLoader(_Around):
    """Of MONAI itself: loads it by parts, or as it is if that fails."""

    def run(self, module: ModuleType) -> None:
        try:
            self._run_parts(module)
        except Exception:
            sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, _Finder)]
            for name in [name for name in sys.modules if name.startswith("monai.")]:
                del sys.modules[name]
            self._own.exec_module(module)
        else:
            module.__class__ = _Incomplete

    def _run_parts(self, module: ModuleType) -> None:
        self._own.exec_module(module)
        tools = vars(import_module("monai.utils.module"))
        tools["load_submodules"] = tools.pop("left_out")
        for name in _PACKAGES:
            spec = find_spec(name)
            if spec is None or name in sys.modules or not isinstance(module.excludes, str):
                raise ImportError("this MONAI is laid out in another way")
            package = module_from_spec(spec)
            package.__class__ = _Incomplete
            sys.modules[name] = package
            setattr(module, name.rpartition(".")[2], package)
        for name in _NEEDED:
            import_module(name)


_LOADERS = {"monai": _MonaiLoader, "monai.utils.module": _ToolsLoader}
