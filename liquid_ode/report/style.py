"""The looks of a page, light and dark, wide and narrow; and the little that moves in it."""

from __future__ import annotations

COLOURS = 8  # of lines; further ones begin again, dashed

STYLE = """\
:root {
  --back: #fcfcfb; --card: #ffffff; --ink: #1d2430; --soft: #5b6675; --line: #dfe3e8;
  --warn: #fff4d6; --warn-line: #e2b93b;
  --c0: #1f6fb4; --c1: #d1640f; --c2: #1d8a5f; --c3: #b3408a;
  --c4: #7a5cc9; --c5: #97760a; --c6: #0e8a99; --c7: #c03a3a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #14171c; --card: #1c2027; --ink: #e4e8ee; --soft: #9aa5b3; --line: #333a45;
    --warn: #3a3013; --warn-line: #a8842a;
    --c0: #6db3f2; --c1: #f4a261; --c2: #5fcfa0; --c3: #ec8ac6;
    --c4: #b39df2; --c5: #d9b648; --c6: #57ccd9; --c7: #f28482;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 76rem; padding: 1.2rem 1rem 4rem; background: var(--back);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 0 0 .4rem; font-size: 1.15rem; }
header p { margin: .3rem 0 0; color: var(--soft); }
section { margin-top: 2.2rem; }
.note { margin-bottom: .8rem; color: var(--soft); max-width: 46rem; }
.warning {
  margin: 1rem 0; padding: .6rem .9rem; background: var(--warn);
  border-left: 4px solid var(--warn-line); border-radius: 4px;
}
.facts { display: flex; flex-wrap: wrap; gap: .7rem; margin-top: 1.2rem; }
.fact {
  flex: 1 1 8rem; padding: .6rem .8rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px;
}
.fact b { display: block; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.fact span { color: var(--soft); font-size: .85rem; }
.row, .wide { display: grid; gap: 1.2rem; align-items: start; }
.row { grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); }
.wide { grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
.row > figure, .wide > figure { max-width: 37rem; }
section > * + .row, section > * + .wide, section > * + .scroll, section > * + figure {
  margin-top: 1.2rem;
}
section > h2 + * { margin-top: 0 !important; }
figure {
  margin: 0; padding: .8rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; min-width: 0;
}
figcaption { margin-bottom: .5rem; overflow-wrap: anywhere; }
figcaption p { margin: .1rem 0 0; color: var(--soft); font-size: .85rem; line-height: 1.4; }
img, figure > svg { display: block; max-width: 100%; height: auto; }
figure > img { width: 100%; }
.pixels, .frame { image-rendering: pixelated; }
.frame { width: 100%; background-repeat: no-repeat; }
.controls { display: flex; align-items: center; gap: .6rem; margin-top: .5rem; }
.controls input { flex: 1; min-width: 4rem; accent-color: var(--c0); }
.controls button {
  width: 2.2rem; height: 2.2rem; color: var(--ink); background: none; font-size: .8rem;
  border: 1px solid var(--line); border-radius: 6px; cursor: pointer;
}
.controls output { min-width: 6.5rem; color: var(--soft); font-size: .85rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; background: var(--card); font-size: .92rem; }
th, td {
  padding: .35rem .8rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line);
}
tbody tr:last-child > * { border-bottom: 0; }
tbody th { font-weight: 500; }
thead th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.numbers td, .numbers thead th:not(:first-child) {
  text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums;
}
.maps td { padding: .2rem; border: 0; }
.maps img { max-width: none; }
.maps th { white-space: nowrap; border: 0; font-weight: 500; font-size: .8rem; color: var(--soft); }
.maps tbody th { position: sticky; left: 0; background: var(--card); vertical-align: middle; }
details { margin-top: .8rem; }
summary { cursor: pointer; color: var(--soft); margin-bottom: .5rem; }
.legend {
  display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .4rem 0 0; padding: 0; list-style: none;
  font-size: .85rem; overflow-wrap: anywhere;
}
.legend svg { display: inline-block; vertical-align: middle; margin-right: .35rem; }
svg text { fill: var(--soft); font-size: 12.5px; font-family: inherit; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .faint { stroke-width: 1; opacity: .3; }
@media print { details { display: block; } .controls button { display: none; } }
"""

SCRIPT = """\
for (const film of document.querySelectorAll(".film")) {
  const labels = film.dataset.labels.split("|"), last = labels.length - 1;
  const [frame, button, slider, said] = ["div.frame", "button", "input", "output"].map(
    (name) => film.querySelector(name));
  let timer = 0, rest = 0;
  const show = (index) => {
    slider.value = index;
    frame.style.backgroundPosition = `0 ${last ? 100 * index / last : 0}%`;
    said.textContent = labels[index];
  };
  const stop = () => { clearInterval(timer); timer = 0; button.textContent = "\\u25B6"; };
  const play = () => {
    button.textContent = "\\u275A\\u275A";
    timer = setInterval(() => {
      const index = +slider.value;
      if (index < last) show(index + 1); else if (++rest > 12) { rest = 0; show(0); }
    }, 150);
  };
  button.onclick = () => (timer ? stop() : play());
  slider.oninput = () => { stop(); show(+slider.value); };
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) stop(); else play();
}
"""
