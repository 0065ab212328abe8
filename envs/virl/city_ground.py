"""The ground that a city stands on: metres, degrees and headings.

Points are metres east and north of an origin. Near it, a metre is the same share of a degree everywhere, and distances agree
with `metres` to a ten-thousandth in cities of these sizes.
"""

from collections.abc import Sequence
from math import asin, atan2, cos, degrees, hypot, radians, sin, sqrt

Point = tuple[float, float]  # metres east and north of the origin
Geocode = tuple[float, float]  # latitude and longitude in degrees, six decimals

METRES_PER_DEGREE = 6_371_000 * radians(1)  # of latitude, on the sphere that haversine measures


def point_of(geocode: Sequence[float], origin: Geocode) -> Point:
    east = (geocode[1] - origin[1]) * METRES_PER_DEGREE * cos(radians(origin[0]))
    return east, (geocode[0] - origin[0]) * METRES_PER_DEGREE


def geocode_of(point: Point, origin: Geocode) -> Geocode:
    longitude = origin[1] + point[0] / (METRES_PER_DEGREE * cos(radians(origin[0])))
    return round(origin[0] + point[1] / METRES_PER_DEGREE, 6), round(longitude, 6)


def metres(a: Sequence[float], b: Sequence[float]) -> float:
    """The great-circle distance of two geocodes, by haversine."""
    rise, turned = radians(b[0] - a[0]) / 2, radians(b[1] - a[1]) / 2
    share = sin(rise) ** 2 + cos(radians(a[0])) * cos(radians(b[0])) * sin(turned) ** 2
    return 2 * degrees(asin(min(1.0, sqrt(share)))) * METRES_PER_DEGREE


def distance(a: Point, b: Point) -> float:
    return hypot(b[0] - a[0], b[1] - a[1])


def bearing(a: Point, b: Point) -> float:
    """Degrees clockwise from north, from 0 to 360."""
    return degrees(atan2(b[0] - a[0], b[1] - a[1])) % 360


def turn(before: float, after: float) -> float:
    """Degrees from one heading to another, above 0 to the right: from -180 to 180."""
    return (after - before + 180) % 360 - 180


def ahead(point: Point, heading: float, metres: float) -> Point:
    return point[0] + metres * sin(radians(heading)), point[1] + metres * cos(radians(heading))


def between(a: Point, b: Point, share: float) -> Point:
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])
