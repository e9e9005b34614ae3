"""Writes addresses.jsonl: address lines as people type them, with the parts they are made of. Knows nothing of models.

Cities and streets are invented or generic, no address is meant to exist; the first three digits of each ZIP code belong
to its state. A value is always a span of its text, since the text is built from the values; an absent part is "".
A box number stays with its route or post office, as the postal service writes it: `street` is "RR 2 Box 152".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import TypeVar

T = TypeVar("T")
HERE = Path(__file__).parent
SEED = 2025
KEYS = ("house_number", "street", "unit", "city", "state", "zip")

# City, state as a code, state in full, first three digits of the state's ZIP codes.
PLACES = tuple(
    tuple(row.split("|"))
    for row in """\
Alder Crossing|OH|Ohio|443
Harrow Mills|PA|Pennsylvania|178
Quail Bend|TX|Texas|786
Port Ansley|WA|Washington|983
Millrace|NY|New York|137
Sandpiper Flats|FL|Florida|346
Cold Hollow|VT|Vermont|056
Tamarack Falls|MN|Minnesota|563
Dunmore Junction|NE|Nebraska|688
East Pellham|MA|Massachusetts|013
Copper Draw|AZ|Arizona|856
Larkin Ferry|KY|Kentucky|422
Blue Gannet|ME|Maine|046
Oxbow Landing|MO|Missouri|653
Vesper Hills|CA|California|953
St. Orlan|LA|Louisiana|705
Three Elms|IL|Illinois|619
New Corbin|IN|Indiana|475
Mesa Tordo|NM|New Mexico|878
Juniper Gap|CO|Colorado|812
Whistler Creek|WI|Wisconsin|544
Old Tannery|NJ|New Jersey|088
Ferris Point|MI|Michigan|497
Kestrel Ridge|ID|Idaho|836
Lower Brandle|VA|Virginia|229
Sugar Fork|TN|Tennessee|384
Palmetto Reach|SC|South Carolina|299
Hickory Shoals|NC|North Carolina|287
Red Plover|SD|South Dakota|574
Northgate Springs|GA|Georgia|316
Wren Valley|OR|Oregon|974
Bitter Lake|UT|Utah|847
Cedar Notch|NH|New Hampshire|035
Stonebridge Heath|CT|Connecticut|063
Prairie Oak|KS|Kansas|674
Antler Pass|MT|Montana|597
Catfish Bayou|MS|Mississippi|394
Gravel Switch Hill|AR|Arkansas|727
Summer Quay|MD|Maryland|216
Lantern Bay|RI|Rhode Island|028
Windrow|IA|Iowa|505
Mossy Fork|WV|West Virginia|262
Tallow Springs|OK|Oklahoma|747
Amber Grove|AL|Alabama|364
Salt Pan|NV|Nevada|894
Heron Neck|DE|Delaware|199
Little Drover|WY|Wyoming|826
Flaxton Mill|ND|North Dakota|587
West Corliss|OH|Ohio|456
Pinch Hollow|PA|Pennsylvania|167
Dos Alamos Viejos|TX|Texas|792
Upper Talbin|NY|New York|128
Marigold Park|CA|California|936
Sable Harbor|MI|Michigan|488
Fallow Green|IL|Illinois|624
Osprey Mound|FL|Florida|323
Bright Acre|MN|Minnesota|567
Thornapple|WI|Wisconsin|548
Ash Landing|WA|Washington|989
Mt. Corran|GA|Georgia|305
""".splitlines()
)
STREETS = (
    *(
        "Harrow Mill Rd",
        "Larkspur Ln",
        "N Tanner St",
        "Old Quarry Road",
        "Birchwood Avenue",
        "SW Plover Ct",
        "E 14th St",
    ),
    *(
        "Cobbler's Way",
        "Foxglove Dr",
        "W Ferry Street",
        "Marsh Hawk Blvd",
        "3rd Ave",
        "Saddleback Trl",
        "Mill Pond Cir",
    ),
    *("Granary Row", "S Lantern Street", "Whitetail Pass", "Orchard Terrace", "Tin Cup Alley", "NE 92nd Pl", "Main St"),
    *("Copperleaf Pkwy", "Ropewalk Sq", "Hollow Oak Drive", "Bellows Hill Rd", "Juniper Loop", "2nd St NW", "Depot St"),
    *(
        "Weaver's Green",
        "Avenue D",
        "Chandler Wharf",
        "Thistle Court",
        "Kiln Road",
        "Blue Heron Way",
        "Elm St",
        "Park Ave",
    ),
    *(
        "Stagecoach Bnd",
        "Sexton Street South",
        "Gristmill Ct",
        "Upper Ridge Rd",
        "Calle Tordo",
        "Pelican Xing",
        "Oak St",
    ),
    *("Wagon Wheel Rd", "Drover's Lane", "St. Orlan Blvd", "Ohio St", "Tamarind Ter", "E Vesper Ave", "Washington Sq"),
)
ROUTES = ("RR 2 Box 152", "HC 61 Box 9", "Rural Route 4 Box 88", "RFD 1 Box 230", "R.R. #3, Box 41A", "HCR 75 Box 312")
ROADS = ("County Road 12", "State Hwy 9", "Township Rd 318", "FM 2104", "Co Rd 450 W", "US Highway 83 N")
BOXES = ("PO Box {}", "P.O. Box {}", "P O Box {}", "POB {}", "Post Office Box {}", "PO BOX {}", "Box {}", "P.O. BOX {}")
UNITS = (
    *(
        "Apt 4B",
        "Suite 210",
        "Ste 300",
        "Unit 7",
        "#12",
        "Bldg C",
        "Apt. 1207",
        "Floor 3",
        "Lot 16",
        "Rm 8",
        "Unit B-2",
    ),
    *("Apt 2", "# 305", "Suite D", "2nd Floor", "Penthouse", "Trlr 5", "Ste. 14-A", "Rear", "Bldg 2 Apt 9", "Dept 40"),
)
# What a layout does not name is absent from the address.
LAYOUTS = {
    "plain": (
        "{house_number} {street}, {city}, {state} {zip}",
        "{house_number} {street}, {city} {state} {zip}",
        "{house_number} {street}, {city}, {state}, {zip}",
        "{house_number} {street}; {city}, {state} {zip}",
        "{house_number} {street}, {city}, {state}",
    ),
    "unit": (
        "{house_number} {street}, {unit}, {city}, {state} {zip}",
        "{house_number} {street} {unit}, {city}, {state} {zip}",
        "{unit}, {house_number} {street}, {city}, {state} {zip}",
        "{house_number} {street}, {city}, {state} {zip}, {unit}",
        "{house_number} {street} {unit}, {city} {state} {zip}",
    ),
    "po_box": (
        "{street}, {city}, {state} {zip}",
        "{street}, {city} {state} {zip}",
        "{street} - {city}, {state} {zip}",
    ),
    "rural_route": (
        "{street}, {city}, {state} {zip}",
        "{house_number} {street}, {city}, {state} {zip}",
        "{street}, {city} {state} {zip}",
        "{house_number} {street}, {city} {state} {zip}",
    ),
    "messy": (
        "ship to {house_number} {street} {unit} {city} {state} {zip}",
        "{house_number}  {street} ,{city}  {state}{zip}",
        "Attn: Receiving, {house_number} {street}, {city} {state} {zip} USA",
        "{city}, {state} {zip} / {house_number} {street}",
        "addr: {street} {house_number}, {city}, {state}",
        "{house_number} {street} {unit} - {city} ({state}) - {zip}",
        "c/o front desk; {house_number} {street}; {unit}; {city}; {state}; {zip}",
        "{house_number} {street} {city} {zip}",
        "deliver to: {house_number} {street}, ring at {unit}, {city}, {state} {zip}, thanks!",
        "{state} {zip} {city} {house_number} {street}",
        "{house_number} {street} (blue door), {city} {state}",
        "{street}, {city}, {state} {zip} - number to follow",
    ),
}
CASES: tuple[Callable[[str], str], ...] = (str, str.upper, str.lower)
COUNTS = {"plain": 18, "unit": 14, "po_box": 8, "rural_route": 8, "messy": 12}


def pick(rng: Random, options: Sequence[T]) -> T:
    """One of the options; `random()` is the only draw that Python promises to keep equal between its versions."""
    return options[int(rng.random() * len(options))]


def shuffled(rng: Random, options: Iterable[T]) -> list[T]:
    """The options in another order."""
    return sorted(options, key=lambda _: rng.random())


def draw_number(rng: Random, digits: Sequence[int]) -> str:
    """A number of as many digits as one of `digits` says."""
    low = 10 ** (pick(rng, digits) - 1)
    return str(low + int(rng.random() * 9 * low))


def draw_house_number(rng: Random) -> str:
    """A house number: mostly digits, now and then with a half, a letter or a second number."""
    number = draw_number(rng, (2, 3, 3, 4, 4, 5))
    return number + (pick(rng, (" 1/2", "B", "-" + number[-1:] + "4", "A")) if rng.random() < 0.15 else "")


def draw_place(rng: Random, kind: str, place: Sequence[str]) -> dict[str, str]:
    """City, state and ZIP code; a fifth of the codes have their last four digits."""
    city, code, name, prefix = place
    zip_code = f"{prefix}{int(100 * rng.random()):02}"
    if rng.random() < 0.2:
        zip_code += "-" + draw_number(rng, (4,))
    in_full = rng.random() < (0.4 if kind == "messy" else 0.1)
    return {"city": city, "state": name if in_full else code, "zip": zip_code}


def make_address(kind: str, layout: str, parts: dict[str, str], rng: Random) -> dict[str, object]:
    """One row: the layout filled with the parts that it names, all in capitals or small letters if it is messy."""
    case = pick(rng, CASES) if kind == "messy" else str
    expected = {key: case(parts[key]) if f"{{{key}}}" in layout else "" for key in KEYS}
    return {"text": case(layout.format(**parts)), "expected": expected, "kind": kind}


def make_addresses() -> Iterator[dict[str, object]]:
    """All rows, in an order that mixes the kinds; no city, street or box comes twice."""
    rng = Random(SEED)
    kinds = shuffled(rng, [(kind, n) for kind, count in COUNTS.items() for n in range(count)])
    streets, roads, routes = shuffled(rng, STREETS), shuffled(rng, ROADS), shuffled(rng, ROUTES)
    boxes = [box.format(draw_number(rng, (2, 3, 4, 5))) for box in shuffled(rng, BOXES)]
    units = shuffled(rng, UNITS)
    for (kind, n), place in zip(kinds, shuffled(rng, PLACES), strict=True):
        layout = LAYOUTS[kind][n % len(LAYOUTS[kind])]
        parts = draw_place(rng, kind, place) | {"house_number": draw_house_number(rng)}
        rural = roads if "{house_number}" in layout else routes
        parts["street"] = {"po_box": boxes, "rural_route": rural}.get(kind, streets).pop()
        parts["unit"] = units.pop() if "{unit}" in layout else ""
        yield make_address(kind, layout, parts, rng)


def write(path: Path) -> None:
    """Write the rows to `path` as JSON Lines, LF line ends, in UTF-8."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in make_addresses())
    path.write_bytes("".join(lines).encode())


if __name__ == "__main__":
    write(HERE / "addresses.jsonl")
