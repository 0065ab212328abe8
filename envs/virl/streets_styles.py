"""How each city looks: its colours, the widths of its streets, and its signs. Colours are RGB, lengths metres."""

from dataclasses import dataclass

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignStyle:
    """A board: its outline, where the name stands, and how far the emblem's colours are turned from the training city's.

    Shape and mark of an emblem are the same everywhere; only its hue drifts, so that it can still be told.
    """

    outline: str  # "square" | "round" | "arch" | "shield"
    frame: Colour
    plate: Colour
    letters: Colour
    post: Colour
    name_first: bool  # the name above the emblem
    hue_turn: float  # degrees
    bottom: float  # metres above the ground
    capitals: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """One city's look."""

    road: float  # from the middle line to the kerb
    walk: float  # from the middle line to the end of the pavement
    front: float  # from the middle line to the facades
    frontage: float  # width of a house, about
    sky: tuple[Colour, Colour]  # overhead, and at the horizon
    clouds: Colour
    ground: Colour
    roadway: Colour
    kerb: Colour
    pavement: Colour
    lines: Colour
    middle_line: str  # "double" | "dashed" | "setts"
    lane: Colour | None  # of a cycle lane at both sides
    crossing: Colour | None  # of its bars
    backdrop: tuple[Colour, ...]  # what stands behind everything, far to near
    skyline: str  # "towers" | "spires" | "slabs" | "hills"
    sun: float  # bearing
    leaves: tuple[Colour, ...]  # of its trees; none without
    tree_gap: float
    lamp: Colour
    lamp_gap: float
    sign: SignStyle


STYLES = {
    "gridport": Style(
        road=5.0, walk=8.0, front=8.0, frontage=14.0,
        sky=((74, 132, 200), (206, 226, 240)), clouds=(238, 244, 250),
        ground=(170, 166, 160), roadway=(82, 84, 90), kerb=(196, 192, 184), pavement=(168, 164, 158), lines=(232, 190, 64),
        middle_line="double", lane=None, crossing=(232, 232, 228),
        backdrop=((176, 196, 214), (152, 174, 196)), skyline="towers", sun=150,
        leaves=((88, 128, 70), (104, 144, 78)), tree_gap=34.0, lamp=(52, 60, 62), lamp_gap=27.0,
        sign=SignStyle(outline="square", frame=(28, 32, 38), plate=(28, 32, 38), letters=(255, 255, 255), post=(60, 64, 70),
                       name_first=False, hue_turn=0.0, bottom=1.9, capitals=False),
    ),
    "oldtown": Style(
        road=3.4, walk=5.2, front=5.2, frontage=8.5,
        sky=((104, 150, 196), (250, 226, 190)), clouds=(255, 240, 222),
        ground=(186, 172, 150), roadway=(158, 146, 130), kerb=(136, 124, 110), pavement=(190, 178, 158), lines=(140, 128, 113),
        middle_line="setts", lane=None, crossing=None,
        backdrop=((222, 200, 178), (200, 172, 150)), skyline="spires", sun=235,
        leaves=(), tree_gap=0.0, lamp=(44, 50, 44), lamp_gap=21.0,
        sign=SignStyle(outline="shield", frame=(92, 60, 34), plate=(246, 232, 200), letters=(70, 40, 20), post=(52, 40, 32),
                       name_first=True, hue_turn=4.0, bottom=1.8, capitals=False),
    ),
    "ringhaven": Style(
        road=5.4, walk=8.6, front=8.6, frontage=15.0,
        sky=((150, 166, 182), (222, 226, 228)), clouds=(200, 206, 212),
        ground=(150, 160, 140), roadway=(104, 106, 108), kerb=(210, 210, 206), pavement=(188, 190, 190), lines=(240, 240, 240),
        middle_line="dashed", lane=(172, 84, 70), crossing=(240, 240, 240),
        backdrop=((196, 202, 206), (166, 178, 172)), skyline="slabs", sun=180,
        leaves=((96, 140, 84), (118, 158, 92), (84, 124, 82)), tree_gap=15.0, lamp=(120, 126, 130), lamp_gap=30.0,
        sign=SignStyle(outline="round", frame=(0, 118, 128), plate=(255, 255, 255), letters=(0, 84, 96), post=(0, 118, 128),
                       name_first=False, hue_turn=-5.0, bottom=1.5, capitals=True),
    ),
    "hillcrest": Style(
        road=4.6, walk=7.0, front=13.0, frontage=17.0,
        sky=((66, 140, 190), (252, 214, 196)), clouds=(255, 232, 226),
        ground=(126, 158, 84), roadway=(98, 94, 96), kerb=(206, 200, 190), pavement=(196, 186, 172), lines=(244, 240, 232),
        middle_line="dashed", lane=None, crossing=None,
        backdrop=((150, 170, 158), (122, 150, 112), (104, 136, 88)), skyline="hills", sun=260,
        leaves=((70, 116, 62), (100, 136, 66), (54, 98, 66)), tree_gap=19.0, lamp=(92, 74, 56), lamp_gap=40.0,
        sign=SignStyle(outline="arch", frame=(250, 246, 238), plate=(58, 92, 66), letters=(252, 244, 214), post=(250, 246, 238),
                       name_first=True, hue_turn=6.0, bottom=1.7, capitals=False),
    ),
}  # fmt: skip


def mixed(colour: Colour, other: Colour, share: float) -> Colour:
    """The colour with that share of the other in it."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(colour, other, strict=True))
    return red, green, blue
