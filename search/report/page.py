"""Rendering of pages: templates, styles, and scripts within the file, which loads nothing from elsewhere."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from search.report.vega import Chart

VEGA_LITE = "6.4"
"""Version of Vega-Lite, of those that vl-convert brings."""
_EXPORTS = "window.vegaEmbed = vegaEmbed;"
"""What `report.js` uses."""


def render(template: str, charts: Sequence[Chart], filters: Mapping[str, object] | None = None, **values: Any) -> str:
    """Render a page.

    Args:
        template: a file of `templates/`.
        charts: all charts of the page, which the template places by their keys.
        filters: by name, what the script filters the trials of a search by.
        values: of the template; every text is escaped.
    """
    environment = Environment(
        loader=PackageLoader("search.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    data = {"charts": {chart.key: chart.as_plain() for chart in charts}, "filters": filters or {}}
    scripts = [_vega(), _text("report.js")] if charts else []
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts) or "'none'"
    return environment.get_template(template).render(
        charts={chart.key: chart for chart in charts},
        # Nothing is loaded, and no text of a search can become a script.
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}",
        style=Markup(_text("report.css")),  # noqa: S704  our own file
        data=Markup(json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")),  # noqa: S704  escaped here
        scripts=[Markup(script) for script in scripts],  # noqa: S704  our own files
        **values,
    )


def _text(name: str) -> str:
    return (resources.files("search.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@functools.cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert  # 84 MB; only pages need it

    return str(vl_convert.javascript_bundle(_EXPORTS, vl_version=VEGA_LITE))


def _number(value: float) -> str:
    return f"{value:.3f}"
