"""HTML documents that load nothing: styles, scripts and images are part of the file."""

from __future__ import annotations

import base64
import hashlib
from html import escape

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222;background:#fff}
h1{margin:0;overflow-wrap:anywhere}h2{margin:2rem 0 .5rem;font-size:1.15rem}.soft{color:#666}a{color:#164}
.scroll{overflow-x:auto}
figure{margin:0 0 1rem}img{max-width:100%}figcaption,.soft{font-size:.87rem;color:#666}
table{border-collapse:collapse}td,th{padding:.15rem 1.2rem .15rem 0;text-align:left;font-weight:normal}th{color:#666}
svg{background:#f7f7f7;display:block}text{font:11px system-ui,sans-serif;fill:#666}
pre{background:#f7f7f7;padding:1rem;overflow:auto}
"""


def html_document(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A page whose content security policy forbids every request; only the given script runs.

    Args:
        title: Title as plain text.
        body: HTML of the body.
        style: CSS after `STYLE`.
        script: JavaScript module that runs once the body is parsed.
    """
    scripts = f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" if script else "'none'"
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )
    module = f'<script type="module">{script}</script>\n' if script else ""
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{STYLE}{style}</style>
<body>
{body}
{module}</body></html>
"""
