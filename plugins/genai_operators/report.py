"""Self-contained HTML pages: inline style, inline SVG, no script, no network, no personal data.

Plots are matplotlib figures (object API, no global state) rendered to SVG, so that a page opens from a mail attachment.
"""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from genai_operators.decisions.verdict import Check, Outcome, Verdict, format_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#24292f", "#6e7781", "#d8dee4"
#: Categorical colours that stay apart for colour-blind readers (Okabe and Ito 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
FIGURE_WIDTH_INCHES, FIGURE_HEIGHT_INCHES = 7.2, 2.8

_BADGES = {
    Outcome.PASS: "#1a7f37",
    Outcome.FAIL: "#cf222e",
    Outcome.WARN: "#9a6700",
    Outcome.INCONCLUSIVE: "#6639ba",
    Outcome.SKIPPED: "#6e7781",
}

_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--ink:#24292f;--muted:#57606a;--line:#d8dee4;--card:#f6f8fa}
@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--ink:#e6edf3;--muted:#9198a1;--line:#30363d;--card:#161b22}}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:880px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:32px 0 8px}p.sub,figcaption,.muted{color:var(--muted)}
p.sub{margin:0 0 20px}table{border-collapse:collapse;width:100%;font-size:14px;margin:8px 0 16px}
th,td{text-align:left;padding:6px 10px;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--muted);font-weight:600}td.num{text-align:right;font-variant-numeric:tabular-nums}
.badge{display:inline-block;border-radius:10px;padding:1px 10px;color:#fff;font-size:12px;font-weight:600}
.scroll{overflow-x:auto}
figure{margin:12px 0 20px;background:#fff;border:1px solid var(--line);border-radius:8px;padding:10px}
figure svg{width:100%;height:auto;display:block}figcaption{font-size:13px;margin-top:6px;color:#57606a}
.summary{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 16px}
"""


class Page:
    """A report, built from the top down; :meth:`html` gives the finished page."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>", f'<p class="sub">{html.escape(subtitle)}</p>']

    def heading(self, text: str) -> Page:
        """A section starts."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")
        return self

    def text(self, text: str) -> Page:
        """A paragraph of plain text."""
        self._parts.append(f"<p>{html.escape(text)}</p>")
        return self

    def verdict(self, verdict: Verdict) -> Page:
        """The gate's outcome, then each check with figure, interval, threshold and n."""
        self._parts.append(
            f'<p class="summary">{badge(verdict.outcome)} <strong>{html.escape(verdict.gate)}</strong> '
            f"{html.escape(verdict.summary)}</p>"
        )
        if verdict.checks:
            headers = ("", "check", "observed", "interval", "threshold", "n", "")
            self._raw_table(headers, [_check_cells(check) for check in verdict.checks])
        return self

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Page:
        """A table; numbers are aligned and shortened."""
        self._raw_table(headers, [[_cell(value) for value in row] for row in rows])
        return self

    def figure(self, figure: Figure, caption: str = "") -> Page:
        """A matplotlib figure as inline SVG."""
        self._parts.append(f"<figure>{svg(figure)}<figcaption>{html.escape(caption)}</figcaption></figure>")
        return self

    def html(self) -> str:
        """The whole page."""
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{html.escape(self._title)}</title><style>{_STYLE}</style></head>"
            f"<body><main>{''.join(self._parts)}</main></body></html>\n"
        )

    def _raw_table(self, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        head = "".join(f"<th>{html.escape(h)}</th>" for h in headers)
        body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
        self._parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )


def report_path(model: str, name: str) -> str:
    """Where in the store the page of a model lies that no workload and no release has in its own folder."""
    return f"reports/{model}/{name}.html"


def badge(outcome: Outcome) -> str:
    """The coloured word of an outcome."""
    return f'<span class="badge" style="background:{_BADGES[outcome]}">{outcome}</span>'


def new_figure(
    *, rows: int = 1, columns: int = 1, width: float = FIGURE_WIDTH_INCHES, height: float = FIGURE_HEIGHT_INCHES
) -> Figure:
    """An empty figure with the house style; ``height`` is per row, sizes in inches. Use ``figure.axes``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.grid(True, color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(MUTED)
        axes.tick_params(colors=MUTED, labelsize=8)
        axes.xaxis.label.set(color=MUTED, size=9)
        axes.yaxis.label.set(color=MUTED, size=9)
        axes.set_prop_cycle(color=COLOURS)
    return figure


def svg(figure: Figure) -> str:
    """Deterministic inline SVG of a figure: no date, no metadata, fixed ids."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "report", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _check_cells(check: Check) -> list[str]:
    interval = ""
    if check.interval is not None:
        interval = f"{format_number(check.interval[0])} to {format_number(check.interval[1])}"
    return [
        f"<td>{badge(check.outcome)}</td>",
        _cell(check.name),
        _cell(check.observed),
        f'<td class="num">{interval}</td>',
        _cell(check.threshold),
        _cell(check.n),
        f'<td class="muted">{html.escape(check.message)}</td>',
    ]


def _cell(value: object) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f'<td class="num">{format_number(value)}</td>'
    return f"<td>{html.escape(str(value))}</td>"
