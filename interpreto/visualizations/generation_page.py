"""Generated texts as interactive HTML: hovering over a generated target colours the units by their attributions."""

import json
import math
from collections.abc import Mapping
from html import escape

from matplotlib import colormaps
from matplotlib.colors import to_hex

from interpreto.typing import AttributionResult
from interpreto.visualizations.output import Html
from interpreto.visualizations.panels import Panel, group_by_sample, shortened
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

# In a notebook several pages share one document, and a cell may run again: all names are local to a function, and
# sections that are set up already are skipped. The script only reads numbers and sets styles; all text is in the page,
# which stays readable without JavaScript. The methods of a section share their targets: a target that is selected in
# one method's text is selected in all of them, for comparison.
_SCRIPT = """
(() => {
const painter = (block, state) => {
  const data = JSON.parse(block.querySelector('script').textContent);
  const units = [...block.querySelectorAll('[data-u]')], targets = [...block.querySelectorAll('[data-t]')];
  const hint = block.querySelector('.hint'), last = data.colours.length - 1;
  return t => {
    const row = t === null ? [] : data.scores[t];
    const selected = units.filter(u => u.dataset.t === String(t)).map(u => Number(u.dataset.u));
    // The selected target is marked by its style: its own score does not set the scale.
    const limit = row.reduce(
      (max, s, u) => s === null || selected.includes(u) ? max : Math.max(max, Math.abs(s)), 1e-12);
    units.forEach(u => {
      const s = t === null ? null : row[u.dataset.u];
      u.style.background = u.style.color = '';
      if (s === null || s === undefined || u.dataset.t === String(t)) { u.title = ''; return; }
      const index = Math.round((s / limit + 1) / 2 * last);
      u.style.background = data.colours[index];
      // White letters on the dark ends of the colour map.
      u.style.color = Math.abs(index - last / 2) > last * 0.36 ? '#fff' : '#111';
      u.title = (s > 0 ? '+' : '') + s;
    });
    targets.forEach(e => {
      const chosen = t !== null && e.dataset.t === String(t);
      e.classList.toggle('chosen', chosen);
      e.setAttribute('aria-pressed', chosen);
    });
    const end = limit.toPrecision(3), pinned = state.pinned === t ? '; pinned, press Esc to release' : '';
    hint.textContent = `score ${data.values[t]}; colours from -${end} (blue) to ${end} (red)${pinned}. ${data.hint}`;
  };
};
for (const section of document.querySelectorAll('section.generations:not([data-ready])')) {
  section.dataset.ready = '';
  const state = {pinned: null}, blocks = [...section.querySelectorAll('.generation')];
  const painters = blocks.map(block => painter(block, state));
  // Without a selection the first target is shown.
  const paint = t => painters.forEach(draw => draw(t === null ? 0 : t));
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

_HINT = "Hover over an underlined target, or step through targets with Tab and the arrow keys; click to pin one."


def of_generations(rows: list[list[Panel]]) -> Html:
    """One section per prompt, with an interactive text and a table of all scores per method."""
    body = "\n".join(map(_section, group_by_sample(rows)))
    return page(f"{body}<script>{_SCRIPT}</script>", "Attributions", _STYLE)


def _section(rows: list[list[Panel]]) -> str:
    # Each row is one target, and a block shows all targets of its result.
    blocks = "".join(_block(panel.method, panel.output) for panel in rows[0])
    title = shortened(_prompt(rows[0][0].output))
    return f'<section class="generations"><h2 dir="auto">{escape(title)}</h2>{blocks}</section>'


def _prompt(output: AttributionResult) -> str:
    """The prompt; of a chat, the user's last message without the tokens of the chat template."""
    turns = _turns(output)
    user_turns = [units for role, units in turns if role == "user"]
    if user_turns:
        return "".join(str(output.elements[unit]) for unit in user_turns[-1])
    return output.prompt


def _turns(output: AttributionResult) -> list[tuple[str, range]]:
    """The turns of a chat, as pairs of role and units; other texts are one turn without a role."""
    # `info` has pairs of role and first unit; a turn ends where the next one begins.
    starts = output.info.get("turns") or [["", 0]]
    ends = [*(first for _, first in starts[1:]), len(output.elements)]
    return [(role, range(first, end)) for (role, first), end in zip(starts, ends, strict=True)]


def _text(output: AttributionResult, control: Mapping[int, int]) -> str:
    """All units as HTML; every turn of a chat is a block of its own.

    Args:
        output: The result.
        control: The number of the target that selecting a unit shows, by unit; other units are plain text.
    """
    turns = _turns(output)
    html = []
    for number, (role, units) in enumerate(turns):
        spans = "".join(_unit(str(output.elements[unit]), unit, control.get(unit)) for unit in units)
        reply = " reply" if number == len(turns) - 1 else ""
        html.append(
            f'<div class="turn{reply}"><span class="role">{escape(role)}</span>{spans}</div>' if role else spans
        )
    return "".join(html)


def _block(method: str, output: AttributionResult) -> str:
    target_units = _target_units(output)
    control = {unit: target for target, unit in enumerate(target_units)} if target_units else {}
    text = _text(output, control)
    # Targets that are not units of the text, such as contrasts, become buttons below it.
    buttons = "" if target_units else "".join(_button(name, number) for number, name in enumerate(output.target_names))
    aside = f'<p class="others">Explained: {buttons}</p>' if buttons else ""
    panels = [Panel(repr(name), output, number) for number, name in enumerate(output.target_names)]
    return (
        f'<div class="generation"><h3>{escape(method)}</h3>'
        f'<div class="text" dir="auto">{text}</div>{aside}<p class="hint" role="status"></p>'
        f"<details open><summary>all scores as a table</summary>{table(panels)}</details>"
        f'<script type="application/json">{_data(output)}</script></div>'
    )


def _target_units(output: AttributionResult) -> list[int]:
    """The index of the unit that each target is; empty if some target is not a unit of the text."""
    units = [str(element) for element in output.elements]
    # Generated targets are at the end of the text and in its order; the same word may occur in the prompt, too.
    indices, unit = [], len(units)
    for name in reversed(output.target_names):
        unit = next((index for index in range(unit - 1, -1, -1) if units[index] == name), -1)
        if unit < 0:
            return []
        indices.append(unit)
    return indices[::-1]


def _unit(element: str, unit: int, target: int | None) -> str:
    """A unit as HTML; leading white space is outside of the coloured span, so that units are visibly apart."""
    word = element.lstrip() or element
    before = element[: len(element) - len(word)]
    control = "" if target is None else f' class="target" data-t="{target}" tabindex="0" role="button"'
    return f'{escape(before)}<span data-u="{unit}"{control}>{escape(word)}</span>'


def _button(name: str, target: int) -> str:
    return f'<span class="target" data-t="{target}" tabindex="0" role="button">{escape(name)}</span>'


def _data(output: AttributionResult) -> str:
    """Numbers for the script, as JSON."""
    scores = [
        [None if math.isnan(score) else float(f"{score:.4g}") for score in row]
        for row in output.ranking_scores.tolist()
    ]
    colours = [to_hex(colormaps["RdBu_r"](step / 32)) for step in range(33)]
    values = [f"{score:.4g}" for score in output.scores.tolist()]
    data = {"scores": scores, "values": values, "colours": colours, "hint": _HINT}
    # Escaped, because "</script>" in a string would end the script element.
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
