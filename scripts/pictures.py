#!/usr/bin/env python3
"""Draw the pictures of the documentation: docs/pictures/*.svg, from the text below.

Run it after a change; `--check` says if a file is not what this draws (the tests do that).
"""

import argparse
import math
import sys
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"
INK, PALE, BLUE = "#1f2937", "#e5edf7", "#2563a8"
BOLD = f"fill='{INK}' font-weight='bold'"
FONT = "font-family='Helvetica, Arial, sans-serif'"

# A column for each participant, then an arrow (`from > to: text`) or a note (`at: text`) a row.
JOIN = """
newcomer | bootstrap peer | a member | all others
newcomer > bootstrap peer: QUIC handshake, hello
newcomer > bootstrap peer: sync: fingerprints of id ranges, own record
bootstrap peer > newcomer: sync: all records that the newcomer lacks
newcomer: verifies each record: the book is full
bootstrap peer > all others: broadcast: the newcomer's record
all others: PeerJoined
newcomer > a member: join the overlay, through one random member
a member > newcomer: neighbor; others follow, about five
newcomer > a member: sync again after 1 s
"""
CRASH = """
crashed node | its neighbor | other neighbors | all others
crashed node: crashes at 0 s
its neighbor > crashed node: keepalive, then a probe: no answer
its neighbor > other neighbors: indirect probe: can you reach it?
other neighbors > crashed node: probe: no answer
its neighbor > all others: broadcast: a signed accusation
all others: PeerSuspected, after about 1.5 s
other neighbors > all others: broadcast: accusations that confirm it
all others: no refutation within the suspicion time
all others: PeerLost, "unreachable", after about 4.5 s
"""

# Boxes (name, x, y), then arrows (from, to, text, bend).
STATES = [
    ("unconfirmed", 90, 60),
    ("alive", 400, 60),
    ("suspected", 710, 60),
    ("left", 240, 250),
    ("expired", 480, 250),
    ("dead", 710, 250),
]
CHANGES = [
    ("unconfirmed", "alive", "answers, or announces: PeerJoined", 0),
    ("alive", "suspected", "probe failed, or accused: PeerSuspected", -30),
    ("suspected", "alive", "refutes, or is heard: PeerRecovered", 30),
    ("suspected", "dead", "not refuted: PeerLost", 0),
    ("alive", "left", "says goodbye: PeerLeft", 0),
    ("alive", "expired", "not refreshed: PeerLost", 0),
]


def svg(width: int, height: int, title: str, body: list[str]) -> str:
    """Return a whole picture, on white, so that it is readable on dark pages too."""
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' "
        f"width='{width}' height='{height}' role='img' aria-label='{escape(title)}' {FONT}>"
    )
    marker = (
        "<defs><marker id='arrow' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' "
        f"markerHeight='7' orient='auto'><path d='M0 0L8 4L0 8z' fill='{INK}'/></marker></defs>"
    )
    ground = f"<rect width='{width}' height='{height}' rx='8' fill='white'/>"
    return "\n".join([head, f"<title>{escape(title)}</title>", marker, ground, *body, "</svg>\n"])


def words(x: float, y: float, text: str, size: int = 13, more: str = f"fill='{INK}'") -> str:
    """Return a centered line of text."""
    return (
        f"<text x='{x:g}' y='{y:g}' font-size='{size}' text-anchor='middle' {more}>"
        f"{escape(text, quote=False)}</text>"
    )


def box(x: float, y: float, width: float, height: float, fill: str = PALE) -> str:
    """Return a rounded box around its middle."""
    left, top = x - width / 2, y - height / 2
    return (
        f"<rect x='{left:g}' y='{top:g}' width='{width:g}' height='{height:g}' rx='6' "
        f"fill='{fill}' stroke='{BLUE}'/>"
    )


def sequence(title: str, text: str) -> str:
    """Draw a sequence diagram."""
    heads, *rows = text.strip().splitlines()
    names = [name.strip() for name in heads.split("|")]
    at = {name: 110 + 225 * place for place, name in enumerate(names)}
    width, height = 225 * len(names), 70 + 44 * len(rows)
    body = []
    for name, x in at.items():
        body.append(f"<path d='M{x} 44V{height - 12}' stroke='#94a3b8' stroke-dasharray='4 4'/>")
        body += [box(x, 30, 150, 28), words(x, 35, name, more=BOLD)]
    for row, line in enumerate(rows):
        y = 90 + 44 * row
        ends, _, said = line.partition(": ")
        if " > " in ends:
            start, end = (at[name] for name in ends.split(" > "))
            body.append(f"<path d='M{start} {y}H{end}' stroke='{INK}' marker-end='url(#arrow)'/>")
            middle = (start + end) / 2
            half = 3.2 * len(said)
            body.append(label(min(max(middle, half + 6), width - half - 6), y - 7, said))
        else:
            half = 3.2 * len(said) + 10
            middle = min(max(at[ends], half + 6), width - half - 6)
            body += [box(middle, y - 5, 2 * half, 26, "#fff7e0"), words(middle, y, said, 12)]
    return svg(width, height, title, body)


def label(x: float, y: float, text: str, size: int = 12) -> str:
    """Return text with a white edge, so that lines behind it do not cross it."""
    edge = words(x, y, text, size, "fill='white' stroke='white' stroke-width='5'")
    return edge + words(x, y, text, size)


def states() -> str:
    """Draw the states of a member in another node's book."""
    at = {name: (x, y) for name, x, y in STATES}
    body = []
    for start, end, said, bend in CHANGES:
        (x1, y1), (x2, y2) = at[start], at[end]
        if y1 == y2:
            side = 60 if x2 > x1 else -60
            line = f"M{x1 + side} {y1 + bend / 3:g}H{x2 - side}"
            where = (x1 + x2) / 2, y1 + (bend / 3 - 28 if bend <= 0 else bend / 3 + 28)
        else:
            line, where = f"M{x1} {y1 + 18}L{x2} {y2 - 18}", ((x1 + x2) / 2, (y1 + y2) / 2)
        body.append(f"<path d='{line}' stroke='{INK}' fill='none' marker-end='url(#arrow)'/>")
        for number, part in enumerate(said.split(": ")):
            body.append(label(where[0], where[1] + 15 * number, part))
    for name, x, y in STATES:
        inside = name in ("alive", "suspected")
        body += [box(x, y, 116, 34, PALE if inside else "#f1f1ee")]
        body.append(words(x, y + 5, name, 14, more=BOLD))
    note = (
        "A higher sequence number, signed by the node itself, leads back to alive from every state."
    )
    body.append(words(400, 305, note, 13))
    return svg(800, 325, "The states of a member", body)


def overview() -> str:
    """Draw what the project does: nodes, links, one record, the book that each node keeps."""
    nodes = {
        "alice": (150, 80, "laptop"),
        "bob": (400, 60, "server"),
        "carol": (330, 200, "robot"),
        "dave": (120, 215, "behind NAT"),
        "erin": (520, 190, "container"),
    }
    links = ["alice bob", "alice dave", "bob carol", "carol dave", "bob erin", "carol erin"]
    body = []
    for link in links:
        (x1, y1, _), (x2, y2, _) = (nodes[name] for name in link.split())
        body.append(f"<path d='M{x1} {y1}L{x2} {y2}' stroke='{BLUE}' stroke-width='2'/>")
    for name, (x, y, kind) in nodes.items():
        body += [f"<circle cx='{x}' cy='{y}' r='34' fill='{PALE}' stroke='{BLUE}'/>"]
        body += [words(x, y, name, 14, more=BOLD), words(x, y + 15, kind, 10)]
    body += [box(705, 80, 230, 112, "#fff7e0"), words(705, 48, "a signed record", 13, BOLD)]
    fields = [
        "id: its Ed25519 public key",
        "name, addresses, protocols",
        'metadata: {"role": "cache"}',
    ]
    body += [words(705, 72 + 20 * row, text, 12) for row, text in enumerate(fields)]
    body.append(f"<path d='M438 62H584' stroke='{INK}' marker-end='url(#arrow)'/>")
    body += [box(705, 205, 230, 100), words(705, 176, "every node's address book", 13, BOLD)]
    book = ["alice, bob, carol, dave, erin", "verified records, in memory"]
    body += [words(705, 200 + 20 * row, text, 12) for row, text in enumerate(book)]
    body.append(f"<path d='M556 192H584' stroke='{INK}' marker-end='url(#arrow)'/>")
    said = "Links are QUIC, direct or relayed. Gossip spreads the records; no server keeps them."
    body.append(words(420, 285, said))
    return svg(840, 305, "Five nodes, their links, a record and an address book", body)


# The columns of the first table of docs/scaling.md that are drawn, from the top, each with
# its color.
GROWTH = [
    (5, "idle, B/s", "#be123c"),
    (3, "kB sent by a node", "#7c3aed"),
    (4, "dials of a node", "#15803d"),
    (2, "a crash is known, s", "#b45309"),
    (1, "all books full, s", "#2563a8"),
]


def growth() -> str:
    """Draw the table of docs/scaling.md, both axes logarithmic."""
    lines = (FOLDER.parent / "scaling.md").read_text().splitlines()
    start = lines.index(next(line for line in lines if line.startswith("| nodes |"))) + 2
    rows = []
    for line in lines[start:]:
        cells = line.replace(",", "").strip("| ").split(" | ")
        if not cells[0].isdigit():
            break
        rows.append([float(cell) for cell in cells])

    def x(nodes: float) -> float:
        return 70 + 230 * (math.log10(nodes) - 1)

    def y(value: float) -> float:
        return 290 - 54 * (math.log10(value) + 2)

    body = []
    for power in range(-2, 4):
        height = y(10.0**power)
        body.append(f"<path d='M70 {height:g}H530' stroke='{PALE}'/>")
        body.append(words(45, height + 4, f"{10.0**power:g}", 11))
    for nodes in (10, 100, 1000):
        body.append(f"<path d='M{x(nodes):g} 20V290' stroke='{PALE}'/>")
        body.append(words(x(nodes), 308, f"{nodes:,} nodes", 11))
    at = 0.0
    for column, name, color in GROWTH:
        points = " ".join(f"{x(row[0]):.1f},{y(row[column]):.1f}" for row in rows)
        body.append(f"<polyline points='{points}' fill='none' stroke='{color}' stroke-width='2'/>")
        # Labels of lines that end close together keep apart.
        at = max(at + 16, y(rows[-1][column]) + 4)
        body.append(words(605, at, name, 12, f"fill='{color}'"))
    return svg(700, 320, "Time, traffic and dials against the number of nodes", body)


def main(arguments: list[str]) -> int:
    """Write the pictures, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if one differs")
    check = parser.parse_args(arguments).check
    pictures = {
        "overview": overview(),
        "states": states(),
        "join": sequence("A newcomer joins", JOIN),
        "crash": sequence("A node crashes", CRASH),
        "growth": growth(),
    }
    differ = False
    for name, picture in pictures.items():
        path = FOLDER / f"{name}.svg"
        if not path.exists() or path.read_text() != picture:
            differ = True
            print(f"{path.name} {'is not what this draws' if check else 'is drawn'}")
            if not check:
                path.write_text(picture)
    return int(check and differ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
