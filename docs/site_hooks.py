"""Links that leave docs/ point to the repository's files on the site; on the disk they are relative."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)\s]+)\)")


def on_page_markdown(markdown: str, **unused: Any) -> str:
    """A link to a file outside of docs/ becomes its name: the site has no such page."""
    return _OUTSIDE.sub(lambda link: f"{link[1]} (`{link[2].partition('#')[0]}`)", markdown)
