"""Maps of members beside the truth."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sciladm.data.durable import write_durably
from sciladm.report.curves import STYLE, svg
from sciladm.report.style import FAINT, INK


@dataclass(frozen=True)
class MapPanel:
    """Fields of one variable at one time.

    ``latitude`` (row,) and ``longitude`` (column,), or y and x; ``fields``: (label, array (row,
    column)). Labels that say `error` or `spread` get colours of their own; all others share one
    scale. ``outline`` (row, column): a mask whose edge is drawn, such as land.
    """

    title: str
    units: str
    latitude: np.ndarray
    longitude: np.ndarray
    fields: Sequence[tuple[str, np.ndarray]]
    outline: np.ndarray | None = None


def map_panel(panel: MapPanel) -> str:
    """One panel as SVG: maps in rows of four, the scale of each kind on the right of its row."""

    def draw() -> Figure:
        columns = min(4, len(panel.fields))
        rows = -(-len(panel.fields) // columns)
        tall = _shape(panel)
        figure = Figure(figsize=(10.6, (10.6 / columns * tall + 0.42) * rows))
        axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for empty in axes[len(panel.fields) :]:
            empty.set_visible(False)
        _draw(figure, axes, panel)
        return figure

    return svg(draw, panel.title)


def draw_samples(path: str | Path, title: str, panels: Sequence[MapPanel]) -> None:
    """One PNG contact sheet of truth and members, a row per panel; same input, same bytes."""
    columns = max(len(panel.fields) for panel in panels)
    heights = [3.0 * _shape(panel) + 0.4 for panel in panels]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.0 * columns, sum(heights) + 0.35), dpi=110)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        axes = figure.subplots(len(panels), columns, squeeze=False, height_ratios=heights)
        for row, panel in zip(axes, panels, strict=True):
            for empty in row[len(panel.fields) :]:
                empty.set_visible(False)
            _draw(figure, row.tolist(), panel)
            row[0].set_ylabel(textwrap.fill(panel.title, 22), fontsize=9)
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_durably(Path(path), out.getvalue())


def _shape(panel: MapPanel) -> float:
    """Height of a map over its width."""
    high, wide = (np.ptp(_edges(axis)) for axis in (panel.latitude, panel.longitude))
    return float(np.clip(high / wide, 0.3, 1.6)) if high and wide else 0.5


def _edges(axis: np.ndarray) -> np.ndarray:
    """Cell edges, half-way between the coordinates."""
    axis = np.asarray(axis, np.float64)
    if axis.size == 1:
        return np.array([axis[0] - 0.5, axis[0] + 0.5])
    middle = (axis[1:] + axis[:-1]) / 2
    return np.concatenate(
        [[axis[0] - (middle[0] - axis[0])], middle, [axis[-1] + (axis[-1] - middle[-1])]]
    )


def _kind(label: str) -> str:
    return next((kind for kind in ("error", "spread") if kind in label), "field")


def _draw(figure: Figure, axes: Sequence[Axes], panel: MapPanel) -> None:
    """Maps of one panel with one colour bar per kind of field."""
    limits = {}
    for kind in ("field", "error", "spread"):
        values = [np.ravel(field) for label, field in panel.fields if _kind(label) == kind]
        finite = np.concatenate(values)[np.isfinite(np.concatenate(values))] if values else []
        if len(finite):
            low, high = np.percentile(finite, [0.5, 99.5])
            size = max(abs(low), abs(high))
            limits[kind] = {"error": (-size, size), "spread": (0.0, high)}.get(kind, (low, high))
    maps = {"field": "viridis", "error": "RdBu_r", "spread": "magma_r"}
    drawn: dict[str, tuple[Any, list[Axes]]] = {}
    x, y = _edges(panel.longitude), _edges(panel.latitude)
    for ax, (label, field) in zip(axes, panel.fields, strict=False):
        kind = _kind(label)
        low, high = limits.get(kind, (0.0, 1.0))
        mesh = ax.pcolormesh(
            x, y, np.ma.masked_invalid(field), cmap=maps[kind], vmin=low, vmax=high,
            rasterized=True,
        )  # fmt: skip
        drawn.setdefault(kind, (mesh, []))[1].append(ax)
        ax.set_facecolor("#e4e7ea")
        if panel.outline is not None:
            ax.contour(
                panel.longitude, panel.latitude, panel.outline, [0.5], colors=[INK], linewidths=0.5
            )
        ax.set_title(label, fontsize=9.5, fontweight="normal")
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set(visible=True, color=FAINT, linewidth=0.6)
    for mesh, where in drawn.values():
        bar = figure.colorbar(mesh, ax=where[-1], fraction=0.05, pad=0.02, aspect=22)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, length=2)
        bar.ax.set_title(panel.units, fontsize=8, fontweight="normal", pad=4)
