"""Writes lines.csv: bookkeeping lines with the account that each is booked on. Knows nothing of models.

Every wording is written by hand in wordings.txt, and every name there is invented. This script adds what differs from
line to line (dates, references, amounts) and what banks, card terminals, billing programs and tills print around it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
SEED = 2025
SHARE_BEFORE, SHARE_AFTER = 0.35, 0.5
SHARE_IN_CAPITALS = {"bank": 0.45, "card": 0.45, "invoice": 0.0, "receipt": 0.1}
BEFORE = {
    "bank": (
        *("EREF {ref} ", "{date} ", "TX{number} ", "Buchung {date} ", "Booked {date} ", "OP. {number} "),
        *("Valuta {date} ", "{ref} ", "Umsatz ", "Opération ", "Apunte "),
    ),
    "card": (
        *("Card payment ", "POS ", "CARD *4417 ", "CARD *0932 ", "Purchase ", "Kartenzahlung ", "CB ", "{date} "),
        *("Compra tarjeta ", "AUTH {number} ", "Carte *4417 ", "{date} {time} "),
    ),
    "invoice": (
        *("Inv. {number} ", "INV-{number} ", "Bill {ref} - ", "Rechnung {number}: ", "RE {number} ", "{date} "),
        *("Facture n° {number}, ", "Factura {number} ", "Our order {ref}: ", "Invoice {date}, ", "{ref}: "),
    ),
    "receipt": (
        *("Receipt {number} ", "Rcpt ", "Beleg {number} ", "Quittung ", "Ticket {number} ", "Petty cash: ", "Reçu "),
        *("Expense claim: ", "{date} ", "Till 3 ", "Cash slip "),
    ),
}
AFTER = {
    "bank": (
        *(" {date}", " REF {ref}", " {number}", " value {date}", " {date} {ref}", " your ref {number}", " {ref}"),
        *(" /ROC/{number}", " EREF {ref}", " period {month}", " Ref. {number}", " IBAN ends {number}"),
    ),
    "card": (
        *(" {date}", " {date} {time}", " EUR {amount}", " AUTH {number}", " {time}", " {ref}", " {amount}"),
        *(" TERMINAL {number}", " approved", " *4417", " ref {ref}", " {time} approved"),
    ),
    "invoice": (
        *(" ({month})", ", net 30", " {date}", ", due {date}", " / order {ref}", ", {month}", " PO {number}"),
        *(", as agreed", ", 2nd copy", ", EUR {amount} net", ", part payment", ", your ref {ref}", ", 14 days net"),
    ),
    "receipt": (
        *(" {date}", " {time}", " EUR {amount}", ", paid cash", ", {date}", " {amount} incl. VAT", " (copy)"),
        *(" no {number}", ", reimbursed", " bar bezahlt", " {date} {time}"),
    ),
}
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"


def pick(rng: Random, options: Sequence[str]) -> str:
    """One of the options; `random()` is the only draw that Python promises to keep equal between its versions."""
    return options[int(rng.random() * len(options))]


def whole(rng: Random, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return low + int(rng.random() * (high - low + 1))


def draw(field: str, rng: Random) -> str:
    """A value for one brace of a wording or of what is printed around it; KeyError if there is no such field."""
    day, month = whole(rng, 1, 28), whole(rng, 1, 12)
    name = MONTHS[month - 1]
    dates = (f"{day:02}.{month:02}.2025", f"2025-{month:02}-{day:02}", f"{day:02}/{month:02}", f"{day} {name}")
    letters = "".join(pick(rng, LETTERS) for _ in range(4))
    values = {
        "date": pick(rng, dates),
        "month": pick(rng, (f"{month:02}/2025", f"{name} 2025", f"{month:02}/25", name)),
        "quarter": f"Q{(month + 2) // 3}/2025",
        "time": f"{whole(rng, 6, 21):02}:{whole(rng, 0, 59):02}",
        "ref": f"{letters[:2]}{whole(rng, 10000, 99999)}",
        "number": str(whole(rng, 1000, 999999)),
        "plate": f"{letters[:2]}-{letters[2:]} {whole(rng, 10, 999)}",
        "amount": f"{whole(rng, 4, 180)}.{whole(rng, 0, 99):02}",
    }
    return values[field]


def dress(label: str, source: str, wording: str) -> str:
    """The wording as its source prints it. Seeded by the line itself, so that editing one line changes no other."""
    rng = Random(f"{SEED} {label} {source} {wording}")
    before = pick(rng, BEFORE[source]) if rng.random() < SHARE_BEFORE else ""
    after = pick(rng, AFTER[source]) if rng.random() < SHARE_AFTER else ""
    text = re.sub(r"\{(\w+)\}", lambda brace: draw(brace[1], rng), f"{before}{wording}{after}")
    return text.upper() if rng.random() < SHARE_IN_CAPITALS[source] else text


def read_wordings(path: Path) -> Iterator[tuple[str, str, str]]:
    """Label, source and wording of every line in `path`, in its order."""
    label = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            label = line.strip("[]")
        elif line and not line.startswith("#"):
            source, _, wording = line.partition(" ")
            yield label, source, wording


def make_lines() -> list[tuple[str, str, str]]:
    """Rows of text, label and source, sorted by text, which mixes the labels."""
    wordings = read_wordings(HERE / "wordings.txt")
    return sorted((dress(label, source, wording), label, source) for label, source, wording in wordings)


def write(path: Path) -> None:
    """Write the rows to `path` as CSV with a header, LF line ends, in UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("text", "label", "source"))
    writer.writerows(make_lines())
    path.write_bytes(text.getvalue().encode())


if __name__ == "__main__":
    write(HERE / "lines.csv")
