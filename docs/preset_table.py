"""The table of docs/presets.md, made from the presets themselves: python docs/preset_table.py"""

from __future__ import annotations

from tal_postproc import presets


def table() -> str:
    """`presets.table` as Markdown."""
    header, *rows = presets.table()
    marked = [(f"`{name}`", *(cell.replace("*", r"\*") for cell in cells)) for name, *cells in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ("---",) * len(header), *marked])


if __name__ == "__main__":
    print(table())
