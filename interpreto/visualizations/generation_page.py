"""Generated texts as a page to explore: point at a generated piece and what it rests on lights up."""

import json
import math
from collections.abc import Mapping
from html import escape

from matplotlib import colormaps
from matplotlib.colors import to_hex

from interpreto.typing import AttributionResult
from interpreto.visualizations.output import Html
from interpreto.visualizations.panels import Panel, sample_rows, shortened
from interpreto.visualizations.text_page import page, table

_STYLE = """
.interpreto .text { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.9; margin: .4rem 0; }
.interpreto .target { border-bottom: 2px solid #888; cursor: pointer; border-radius: .2em; }
.interpreto .target:focus-visible { outline: 2px solid #05c; }
.interpreto .chosen { border-bottom-color: #05c; background: #dbe9ff; color: #111; }
.interpreto .others { font-size: .85rem; }
.interpreto .others .target { margin-right: .6rem; }
.interpreto .turn { margin: .3rem 0; padding-left: .7rem; border-left: 3px solid #ddd; white-space: pre-wrap; }
.interpreto .turn.reply { border-left-color: #888; }
.interpreto .role { display: block; font-size: .75rem; line-height: 1.3; color: #555; }
.interpreto .hint { font-size: .8rem; color: #555; min-height: 1.3em; }
"""

# In a notebook several pages share one document, and a cell may run again: names are the function's own, and a section
# that is set up already is left alone. The script only reads numbers and sets styles; all text is in the page already.
# The methods of a section share their targets: a piece that is chosen under one is chosen under all, so that they can
# be compared.
_SCRIPT = """
(() => {
const painter = (block, state) => {
  const data = JSON.parse(block.querySelector('script').textContent);
  const units = [...block.querySelectorAll('[data-u]')], targets = [...block.querySelectorAll('[data-t]')];
  const hint = block.querySelector('.hint'), wide = data.colours.length - 1;
  return t => {
    const row = t === null ? [] : data.scores[t];
    const own = units.filter(u => u.dataset.t === String(t)).map(u => Number(u.dataset.u));
    // The chosen piece has a colour of its own, so that its score does not set the scale.
    const high = row.reduce((most, s, u) => s === null || own.includes(u) ? most : Math.max(most, Math.abs(s)), 1e-12);
    units.forEach(u => {
      const s = t === null ? null : row[u.dataset.u];
      u.style.background = u.style.color = '';
      if (s === null || s === undefined || u.dataset.t === String(t)) { u.title = ''; return; }
      const place = Math.round((s / high + 1) / 2 * wide);
      u.style.background = data.colours[place];
      u.style.color = Math.abs(place - wide / 2) > wide * 0.36 ? '#fff' : '#111';
      u.title = (s > 0 ? '+' : '') + s;
    });
    targets.forEach(e => {
      const chosen = t !== null && e.dataset.t === String(t);
      e.classList.toggle('chosen', chosen);
      e.setAttribute('aria-pressed', chosen);
    });
    const limit = high.toPrecision(3), kept = state.pinned === t ? '; kept, Esc to let go' : '';
    hint.textContent = `score ${data.values[t]}; colours from -${limit} (blue) to ${limit} (red)${kept}. ${data.hint}`;
  };
};
for (const section of document.querySelectorAll('section.generations:not([data-ready])')) {
  section.dataset.ready = '';
  const state = {pinned: null}, blocks = [...section.querySelectorAll('.generation')];
  const painters = blocks.map(block => painter(block, state));
  const paint = t => painters.forEach(one => one(t === null ? 0 : t));
  for (const block of blocks) {
    const targets = [...block.querySelectorAll('[data-t]')];
    targets.forEach((e, number) => {
      const t = Number(e.dataset.t);
      e.addEventListener('mouseenter', () => { if (state.pinned === null) paint(t); });
      e.addEventListener('mouseleave', () => { if (state.pinned === null) paint(null); });
      e.addEventListener('focus', () => { if (state.pinned === null) paint(t); });
      e.addEventListener('click', () => { state.pinned = state.pinned === t ? null : t; paint(t); });
      e.addEventListener('keydown', key => {
        const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[key.key];
        if (step) {
          state.pinned = null;
          targets[(number + step + targets.length) % targets.length].focus();
          key.preventDefault();
        }
        if (key.key === 'Enter' || key.key === ' ') { e.click(); key.preventDefault(); }
        if (key.key === 'Escape') { state.pinned = null; paint(null); }
      });
    });
    block.querySelector('details').open = false;
  }
  paint(null);
}
})();
"""

_HINT = "Point at an underlined piece, or step through them with Tab and the arrow keys; a click keeps one."


def of_generations(rows: list[list[Panel]]) -> Html:
    """One section per prompt, with a text to explore per method and all scores as tables."""
    body = "\n".join(map(_section, sample_rows(rows)))
    return page(f"{body}<script>{_SCRIPT}</script>", "Attributions", _STYLE)


def _section(rows: list[list[Panel]]) -> str:
    blocks = "".join(_block(panel.method, panel.output) for panel in rows[0])
    title = shortened(_prompt(rows[0][0].output))
    return f'<section class="generations"><h2 dir="auto">{escape(title)}</h2>{blocks}</section>'


def _prompt(output: AttributionResult) -> str:
    """What the user wrote: the prompt, of a chat the last message of the user's, without the template around it."""
    turns = _turns(output)
    users = [pieces for role, pieces in turns if role == "user"]
    if users:
        return "".join(str(output.elements[unit]) for unit in users[-1])
    return str(output.raw_input[0]) if isinstance(output.raw_input, tuple) else ""


def _turns(output: AttributionResult) -> list[tuple[str, range]]:
    """The turns of a chat with their units; one without a role for other texts."""
    known = output.info.get("turns") or [["", 0]]
    ends = [*(first for _, first in known[1:]), len(output.elements)]
    return [(role, range(first, end)) for (role, first), end in zip(known, ends, strict=True)]


def _text(output: AttributionResult, control: Mapping[int, int]) -> str:
    """All units; of a chat each turn apart, and the reply on a line of its own."""
    turns = _turns(output)
    found = []
    for number, (role, units) in enumerate(turns):
        pieces = "".join(_unit(str(output.elements[unit]), unit, control.get(unit)) for unit in units)
        reply = " reply" if number == len(turns) - 1 else ""
        found.append(
            f'<div class="turn{reply}"><span class="role">{escape(role)}</span>{pieces}</div>' if role else pieces
        )
    return "".join(found)


def _block(method: str, output: AttributionResult) -> str:
    owners = _owners(output)
    control = {unit: target for target, unit in enumerate(owners)} if owners else {}
    text = _text(output, control)
    others = "" if owners else "".join(_button(name, number) for number, name in enumerate(output.target_names))
    aside = f'<p class="others">Explained: {others}</p>' if others else ""
    panels = [Panel(repr(name), output, number) for number, name in enumerate(output.target_names)]
    return (
        f'<div class="generation"><h3>{escape(method)}</h3>'
        f'<div class="text" dir="auto">{text}</div>{aside}<p class="hint" role="status"></p>'
        f"<details open><summary>all scores as a table</summary>{table(panels)}</details>"
        f'<script type="application/json">{_data(output)}</script></div>'
    )


def _owners(output: AttributionResult) -> list[int]:
    """The unit that each target is, found from the end of the text; none if some target is no unit."""
    units = [str(element) for element in output.elements]
    found, unit = [], len(units)
    for name in reversed(output.target_names):
        unit = next((place for place in range(unit - 1, -1, -1) if units[place] == name), -1)
        if unit < 0:
            return []
        found.append(unit)
    return found[::-1]


def _unit(element: str, unit: int, target: int | None) -> str:
    """White space in front stays outside, so that pieces do not run into each other."""
    word = element.lstrip() or element
    before = element[: len(element) - len(word)]
    control = "" if target is None else f' class="target" data-t="{target}" tabindex="0" role="button"'
    return f'{escape(before)}<span data-u="{unit}"{control}>{escape(word)}</span>'


def _button(name: str, target: int) -> str:
    return f'<span class="target" data-t="{target}" tabindex="0" role="button">{escape(name)}</span>'


def _data(output: AttributionResult) -> str:
    """Numbers for the script; nothing in them can end the element they stand in."""
    scores = [
        [None if math.isnan(score) else float(f"{score:.4g}") for score in row]
        for row in output.ranking_scores.tolist()
    ]
    colours = [to_hex(colormaps["RdBu_r"](step / 32)) for step in range(33)]
    values = [f"{score:.4g}" for score in output.scores.tolist()]
    data = {"scores": scores, "values": values, "colours": colours, "hint": _HINT}
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
