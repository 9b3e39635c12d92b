"""The section about a refinement: what each of its stages came to."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from spml_dist.drawing.overlay import palette
from spml_dist.report.charts import share_figure, svg
from spml_dist.report.summary import title


def section(refinement: dict[str, Any]) -> dict[str, Any]:
    """What a run's refinement.json holds, as the page shows it."""
    stages = refinement["stages"]
    bars = [(f"{each['stage']}, {title(each['readout'])}", each["miou"], each["split"]) for each in stages]
    labels = [each for each in stages if each.get("classes")]
    return {
        "rows": [(each["stage"], title(each["readout"]), each) for each in stages],
        "picture": Markup(svg(share_figure(bars))) if bars else None,
        "labels": [(each["stage"], each["split"], each["images"]) for each in labels],
        "classes": _classes(refinement, labels),
    }


def _classes(refinement: dict[str, Any], labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Precision and recall of every class by every stage that made labels; None where nothing tells it."""
    names = refinement["classes"]
    colours = palette(len(names), refinement["background"]).tolist()
    return [
        {
            "name": name,
            "colour": tuple(colour),
            "shares": [each["classes"][name][key] for each in labels for key in ("precision", "recall")],
        }
        for name, colour in zip(names, colours, strict=False)
    ]
