"""Template, styles, scripts and data as one HTML text."""

from __future__ import annotations

import json
from importlib.resources import files

VIEWS = (("walk", "The walk"), ("field", "Field of view"), ("shift", "Shift"), ("warp", "Warp"), ("check", "Check"))
TENSORS = (("input", "x"), ("weight", "w"), ("output", "y"), ("columns", "c"))
# In the order of use: plain scripts, since modules cannot be loaded from a file.
CORE = ("affine", "problem", "steps", "builder", "nests", "program", "cache", "uses", "field", "shift", "warp")
UI = (
    "dom", "state", "runner", "walk", "order", "choices", "geometry", "maps", "cacheview", "counts", "pick", "panel",
    "judge", "controls", "transport", "fieldview", "shiftview", "warpview", "main",
)  # fmt: skip
STYLE = ("base", "layout", "controls", "figures", "pictures")


def sources(folder: str, names: tuple[str, ...], suffix: str = "js") -> str:
    """The named files of a folder, one behind the other."""
    return "\n".join((files(__package__) / folder / f"{name}.{suffix}").read_text("utf-8") for name in names)


def page(data: dict[str, object], check: str, footer: str) -> str:
    """The page as one text. ``data``: 'examples' and 'presets' as ``examples.py`` makes them; ``check``: the sentence
    that heads the comparison with Python; ``footer``: the last line. Raises ImportError without Jinja2."""
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(f"study: page: Jinja2 is needed ({error})") from None
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((files(__package__) / "page.html.j2").read_text("utf-8"))
    inside = {
        "style": sources("style", STYLE, "css"), "core": sources("core", CORE), "ui": sources("ui", UI),
        # A text of JSON must not end the script that holds it.
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    }  # fmt: skip
    raw = {name: jinja2.utils.markupsafe.Markup(text) for name, text in inside.items()}
    return template.render(views=VIEWS, tensors=TENSORS, check=check, footer=footer, **raw)
