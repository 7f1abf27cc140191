"""The model card, as Markdown, drawn up from the manifest."""

from __future__ import annotations

from typing import Any

from medrl.bundles.manifest import Manifest, named


def render_card(manifest: Manifest) -> str:
    """Draw up the `README.md` of a model.

    Args:
        manifest: Contents of its `model.json`.

    Returns:
        Markdown text.
    """
    lines = [f"# {manifest['card'].get('title', manifest['name'])}", ""]
    lines += [f"A medrl model: task `{manifest['task']}`, name `{manifest['name']}`.", ""]
    for key, value in manifest["card"].items():
        if key != "title":
            lines += [f"## {_heading(key)}", "", *_body(value), ""]
    for key, names in named(manifest).items():
        lines += [f"## {_heading(key)} ({len(names)})", "", *(f"- {name}" for name in names), ""]
    for key in ("metrics", "versions"):
        content = manifest[key]  # type: ignore[literal-required]
        if content:
            lines += [f"## {_heading(key)}", "", *_body(content), ""]
    return "\n".join(lines)


def _heading(key: str) -> str:
    """A key as a heading."""
    text = key.replace("_", " ")
    return text[:1].upper() + text[1:]


def _body(value: Any, indent: str = "") -> list[str]:
    """A value as Markdown lines: texts as they are, lists and objects as bullets."""
    if isinstance(value, dict):
        lines = []
        for key, inner in value.items():
            if isinstance(inner, dict | list) and inner:
                lines += [f"{indent}- {_heading(str(key))}:", *_body(inner, indent + "  ")]
            else:
                lines.append(f"{indent}- {_heading(str(key))}: {_plain(inner)}")
        return lines
    if isinstance(value, list):
        if all(not isinstance(item, dict | list) for item in value):
            return [f"{indent}- {_plain(item)}" for item in value]
        return [line for item in value for line in _body(item, indent)]
    return [indent + _plain(value)]


def _plain(value: Any) -> str:
    """One value as text; figures rounded to what they are worth."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
