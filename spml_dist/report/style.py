"""How the report looks: one style sheet, for light and for dark rooms."""

_TONES = "\n".join(
    f".matrix .k{tone} {{ background: color-mix(in srgb, var(--one) {5 * tone}%, transparent); }}"
    for tone in range(21)
)
_DARK_TONES = ",".join(f".matrix .k{tone}" for tone in range(12, 21))

CSS = (
    f"""{_TONES}
{_DARK_TONES} {{ color: #fff; }}
"""
    + """
:root {
  color-scheme: light dark;
  --ink: #1d2229; --soft: #667080; --paper: #f6f7f9; --card: #ffffff; --line: #e3e6eb;
  --one: #0072B2; --two: #D98200;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #98a2b1; --paper: #14171c; --card: #1d2128; --line: #313743;
          --one: #4BA6DE; --two: #F0A93B; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 19px; margin: 48px 0 14px; }
h3 { font-size: 14px; margin: 0 0 8px; font-weight: 600; }
p { margin: 6px 0; } .soft { color: var(--soft); } code { font-size: .92em; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px; }
.card + .card { margin-top: 16px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 14px;
         margin-top: 24px; }
.tile b { display: block; font-size: 27px; line-height: 1.2; font-weight: 650; letter-spacing: -.01em;
          font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(330px, 100%), 1fr)); gap: 16px; }
.grid .card + .card, .tiles .card + .card { margin-top: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-size: 13px; font-weight: 600; color: var(--soft); }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
tr.mean td { font-weight: 650; }
td.bar { width: 42%; }
td.bar div { display: flex; align-items: center; gap: 10px; }
td.bar i { display: block; height: 9px; border-radius: 2px; background: var(--one); min-width: 1px; }
td.bar.second i { background: var(--two); }
td.bar .track { flex: 1; display: block; }
td.bar .value { width: 44px; text-align: right; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 9px;
          border: 1px solid #8884; }
tr.absent td { color: var(--soft); }
img { display: block; max-width: 100%; height: auto; border-radius: 6px; background: #fff; }
svg { display: block; width: 100%; height: auto; }
figure { margin: 0; min-width: 0; } figure + figure { margin-top: 18px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(430px, 100%), 1fr)); gap: 22px; }
.pair figure + figure { margin-top: 0; }
.matrix { width: 100%; table-layout: fixed; font-size: 11px; }
.matrix td, .matrix th { border: 0; padding: 0; height: 24px; text-align: center; overflow: hidden;
                         box-shadow: inset 0 0 0 .5px var(--line); }
.matrix th, .matrix tr:first-child td { box-shadow: none; font-size: 11px; font-weight: 400; }
.matrix th:first-child { width: 118px; text-align: right; padding-right: 8px; text-overflow: ellipsis; }
.matrix tr:first-child td { width: 118px; }
.matrix tr:first-child th { height: 118px; vertical-align: bottom; text-align: center; padding: 0 0 6px;
                            width: auto; }
.matrix th span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 112px; }
.matrix.dense td, .matrix.dense th { height: 14px; font-size: 10px; }
ul { margin: 0; padding-left: 20px; }
figcaption { color: var(--soft); font-size: 13px; margin-bottom: 6px; }
details summary { cursor: pointer; color: var(--soft); }
pre { overflow-x: auto; font-size: 13px; line-height: 1.45; margin: 12px 0 0; }
@media print { body { background: #fff; } .card { break-inside: avoid; } }
"""
)
