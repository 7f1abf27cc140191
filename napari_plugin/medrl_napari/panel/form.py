"""A form made from the fields of a frozen dataclass."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QLineEdit,
    QSpinBox,
    QWidget,
)

from medrl.errors import MedrlError
from medrl_napari.tick_list import TickList
from medrl_napari.widgets import Choice, button, row

_MOST = 2**31 - 1


class OptionsForm(QWidget):
    """A line for every field of a dataclass: what its type allows, its default, its docstring."""

    def __init__(self) -> None:
        """Ask for nothing yet."""
        super().__init__()
        self._type: type[Any] | None = None
        self._inputs: dict[str, _Input] = {}
        self._layout = QFormLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setVerticalSpacing(3)

    def ask(self, options: type[Any], *, names: Mapping[str, Sequence[str]] | None = None) -> None:
        """Ask for the fields of another dataclass.

        Args:
            options: A frozen dataclass. Fields may be bool, int, float, str, Path, a Literal of
                texts, a tuple of texts, or one of these or None; anything else is asked for as
                JSON.
            names: What is known of the names that a tuple of texts may hold, by field.
        """
        while self._layout.rowCount():
            self._layout.removeRow(0)
        self._type = options
        self._inputs = {}
        hints, tips = get_type_hints(options), field_tips(options)
        for field in fields(options):
            made = _input_of(hints[field.name], (names or {}).get(field.name, ()), field.name)
            made.set(_default_of(field))
            made.widget.setToolTip(tips.get(field.name, ""))
            self._inputs[field.name] = made
            title = field.name.replace("_", " ")
            if isinstance(made.widget, TickList):
                self._layout.addRow(made.widget)
            elif isinstance(made.widget, QCheckBox):
                made.widget.setText(title)
                self._layout.addRow("", made.widget)
            else:
                self._layout.addRow(title, made.part)
        self.setVisible(bool(self._inputs))

    @property
    def inputs(self) -> dict[str, QWidget]:
        """What asks for each field."""
        return {name: made.widget for name, made in self._inputs.items()}

    def values(self) -> Any:
        """The dataclass as chosen.

        Raises:
            MedrlError: If a field holds what it cannot.
        """
        assert self._type is not None
        values = {}
        for name, made in self._inputs.items():
            try:
                values[name] = made.get()
            except ValueError as error:
                raise MedrlError(f"{name.replace('_', ' ')}: {error}") from error
        return self._type(**values)


def field_tips(options: type[Any]) -> dict[str, str]:
    """The docstrings that stand below the fields of a dataclass, by field."""
    try:
        source = textwrap.dedent(inspect.getsource(options))
    except (OSError, TypeError):  # made by a program, or without its source
        return {}
    (definition,) = ast.parse(source).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    tips = {}
    for field, below in pairwise(body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            tips[field.target.id] = inspect.cleandoc(str(below.value.value))
    return tips


def _default_of(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else None


class _Input:
    """Asks for one value; this one for JSON, as for types of which nothing else is known."""

    def __init__(self, widget: QWidget | None = None) -> None:
        self.widget: Any = QLineEdit() if widget is None else widget
        self.part: Any = self.widget

    def set(self, value: Any) -> None:
        self.widget.setText("" if value is None else json.dumps(value, default=str))

    def get(self) -> Any:
        text = self.widget.text().strip()
        value = json.loads(text) if text else None
        return tuple(value) if isinstance(value, list) else value


class _Tick(_Input):
    def set(self, value: Any) -> None:
        self.widget.setChecked(bool(value))

    def get(self) -> bool:
        return bool(self.widget.isChecked())


class _Number(_Input):
    def set(self, value: Any) -> None:
        self.widget.setValue(value or 0)

    def get(self) -> Any:
        return self.widget.value()


class _OneOf(_Input):
    def __init__(self, choices: Sequence[Any]) -> None:
        super().__init__(Choice())
        for value in choices:
            self.widget.addItem(str(value), value)

    def set(self, value: Any) -> None:
        self.widget.setCurrentIndex(max(0, self.widget.findData(value)))

    def get(self) -> Any:
        return self.widget.currentData()


class _Text(_Input):
    """A text, a path or a number that may be left out."""

    def __init__(self, kind: type[Any], *, optional: bool) -> None:
        super().__init__()
        self._kind, self._optional = kind, optional
        if optional:
            self.widget.setPlaceholderText("none")
        if kind is Path:
            self.part = row(self.widget, button("…", "Choose a file", self._choose))

    def set(self, value: Any) -> None:
        self.widget.setText("" if value is None else str(value))

    def get(self) -> Any:
        text = self.widget.text().strip()
        if not text and self._optional:
            return None
        return self._kind(text)

    def _choose(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self.widget, "Choose a file")
        if path:
            self.widget.setText(path)


class _Names(_Input):
    """Texts apart by semicolons, as coordinates have commas."""

    def set(self, value: Any) -> None:
        self.widget.setPlaceholderText("none; or several apart by ;")
        self.widget.setText("; ".join(value or ()))

    def get(self) -> tuple[str, ...]:
        return tuple(text for part in self.widget.text().split(";") if (text := part.strip()))


class _KnownNames(_Input):
    """Names from a list; all of them is the same as none, which means no choice was made."""

    def __init__(self, names: Sequence[str], what: str) -> None:
        super().__init__(TickList(what.replace("_", " ").capitalize()))
        self._names = tuple(names)
        self.widget.offer(names)

    def set(self, value: Any) -> None:
        if value:
            self.widget.tick(value)

    def get(self) -> tuple[str, ...]:
        chosen = self.widget.names
        if not chosen:
            raise ValueError("tick at least one")
        return () if chosen == self._names else tuple(chosen)


def _input_of(hint: Any, names: Sequence[str], what: str) -> _Input:
    optional = get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)
    if optional:
        rest = [kind for kind in get_args(hint) if kind is not NoneType]
        hint = rest[0] if len(rest) == 1 else None
    if get_origin(hint) is Literal:
        return _OneOf([*([None] if optional else []), *get_args(hint)])
    if hint is bool and not optional:
        return _Tick(QCheckBox())
    if hint in (int, float) and not optional:
        box = QSpinBox() if hint is int else QDoubleSpinBox()
        box.setRange(-_MOST, _MOST)
        if isinstance(box, QDoubleSpinBox):
            box.setDecimals(4)
        return _Number(box)
    if hint in (str, Path, int, float):
        return _Text(hint, optional=optional)
    if get_origin(hint) is tuple and get_args(hint) == (str, ...):
        return _KnownNames(names, what) if names else _Names()
    return _Input()
