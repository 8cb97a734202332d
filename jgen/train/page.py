"""The frame of a page: readable on a phone and on a wide screen, in light and in dark."""

import html

STYLE = """
:root{color-scheme:light dark;--ink:#1c1e21;--paper:#fff;--faint:#5a6068;--line:#d8dce1;--box:#f4f5f7}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--paper:#15171a;--faint:#a3aab3;--line:#383d44;--box:#202429}
.plot img{filter:invert(.92) hue-rotate(180deg)}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:76rem;margin:0 auto;padding:1rem}
h1{font-size:1.6rem;line-height:1.25;overflow-wrap:anywhere}h2{margin-top:2rem;border-bottom:1px solid var(--line)}
.wide{overflow-x:auto}table{border-collapse:collapse}
th,td{text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0;border-bottom:1px solid var(--line)}
td{min-width:5rem}.scores td:nth-child(3),.scores td:nth-child(5){min-width:13rem}
pre{background:var(--box);padding:1rem;overflow:auto;border-radius:.3rem}
.figures{display:grid;gap:1.5rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr))}
.figures.small{grid-template-columns:repeat(auto-fill,minmax(min(100%,13rem),1fr))}
figure{margin:0;overflow-x:auto;container-type:inline-size}
figure img{display:block;height:auto;max-width:none;background:#888}
.plot img{max-width:100%;background:none}
.pixels img{image-rendering:pixelated}
figcaption{color:var(--faint);font-size:.9rem;margin-top:.3rem;overflow-wrap:anywhere}
"""


def page(title: str, body: str) -> str:
    """An HTML page of its own; body: its HTML. Nothing in it comes from elsewhere."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head>
<body><main>{body}</main></body></html>"""
