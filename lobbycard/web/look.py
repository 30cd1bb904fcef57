"""How the page looks: theme, styles and the little script, for `launch`. Nothing in it comes from another server."""

from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# name -> (light, dark); the styles use the same, as --lc-name. Every text colour has at least 4.5 to 1 on paper and card.
COLOURS = {
    "paper": ("#f5efe4", "#151012"),
    "card": ("#fffdf8", "#1f181a"),
    "ink": ("#241a1d", "#f0e8de"),
    "soft": ("#6a5a54", "#b9aba3"),
    "line": ("#dccfbd", "#43373a"),
    "edge": ("#8d7b6c", "#8a7a76"),  # of things to use: 3 to 1
    "accent": ("#9c1f35", "#f0808f"),
    "on-accent": ("#fffdf8", "#1b0d10"),
    "quiet": ("#c9b59c", "#6a575a"),
    "brass": ("#80601d", "#d9ac52"),
}
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Liberation Sans", "Arial", "sans-serif")
MONO = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "Liberation Mono", "monospace")


def look() -> dict[str, Any]:
    """Arguments of `launch`: theme, css, head, footer_links."""
    style = (HERE / "page.css").read_text(encoding="utf-8")
    script = (HERE / "page.js").read_text(encoding="utf-8")
    # Styles stand in the head, since Gradio rewrites the selectors of `css`.
    head = (
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_variables()}{style}</style><script>{script}</script>"
    )
    return {"theme": theme(), "head": head, "footer_links": []}


def theme() -> Any:
    """Gradio's own parts in the page's colours and the system's fonts."""
    from gradio.themes import Base
    from gradio.themes.utils.fonts import Font

    made = Base(font=[Font(name) for name in SANS], font_mono=[Font(name) for name in MONO], radius_size="sm")
    values = {
        "body_background_fill": "paper",
        "body_text_color": "ink",
        "body_text_color_subdued": "soft",
        "background_fill_primary": "card",
        "background_fill_secondary": "paper",
        "border_color_primary": "line",
        "border_color_accent": "accent",
        "color_accent": "accent",
        "color_accent_soft": "paper",
        "link_text_color": "accent",
        "link_text_color_hover": "ink",
        "link_text_color_active": "accent",
        "link_text_color_visited": "accent",
        "block_background_fill": "card",
        "block_border_color": "line",
        "block_label_background_fill": "card",
        "block_label_text_color": "soft",
        "block_title_text_color": "ink",
        "block_info_text_color": "soft",
        "accordion_text_color": "ink",
        "panel_background_fill": "card",
        "input_background_fill": "card",
        "input_border_color": "edge",
        "input_border_color_focus": "accent",
        "input_placeholder_color": "soft",
        "slider_color": "accent",
        "loader_color": "accent",
        "checkbox_background_color": "card",
        "checkbox_background_color_selected": "accent",
        "checkbox_border_color": "edge",
        "checkbox_border_color_selected": "accent",
        "checkbox_label_background_fill": "card",
        "checkbox_label_text_color": "ink",
        "button_primary_background_fill": "accent",
        "button_primary_background_fill_hover": "accent",
        "button_primary_text_color": "on-accent",
        "button_primary_text_color_hover": "on-accent",
        "button_primary_border_color": "accent",
        "button_primary_border_color_hover": "accent",
        "button_secondary_background_fill": "card",
        "button_secondary_text_color": "ink",
        "button_secondary_border_color": "edge",
    }
    settings = {}
    for name, colour in values.items():
        settings[name], settings[f"{name}_dark"] = COLOURS[colour]
    import inspect

    known = inspect.signature(made.set).parameters
    return made.set(
        **{name: value for name, value in settings.items() if name in known},
        block_shadow="none",
        input_border_width="1px",
    )


def _variables() -> str:
    light, dark = ("".join(f"--lc-{name}:{pair[side]};" for name, pair in COLOURS.items()) for side in (0, 1))
    return f":root{{{light}}}.dark{{{dark}}}"
