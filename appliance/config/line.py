"""What a line carries and who gets what of it: the sections of the file below `shaping`.

What spans several keys is judged in `shaping`.
"""

from typing import Annotated

from pydantic import Field

from appliance.config.fields import BetweenTwo, Name, Rate, Section, Share


class Rates(Section):
    """The least and the most that a line carries whose rate varies: it is learned between them."""

    least_bps: Rate = Field(
        alias="min",
        description="It is never set lower: what the line carries at its worst.",
        examples=["2 Mbit/s"],
    )
    most_bps: Rate = Field(
        alias="max",
        description="It is never set higher: what the line carries at its best.",
        examples=["60 Mbit/s"],
    )


class LineShare(Section):
    """What somebody gets of a line when everybody wants more."""

    guarantee: Share | None = Field(
        default=None,
        description="So much of the rate is its own whenever it wants it; what it leaves is for "
        "the others. All guarantees of a line are 85 % at most. Default: 1 % for a class, and for "
        "a site what sites have without one.",
        examples=["40 %"],
    )
    ceiling: Share | None = Field(
        default=None,
        description="It never gets more, even of a line that is idle otherwise.",
        examples=["80 %"],
    )


class ClassShare(LineShare):
    """The share of a class."""

    class_name: Name = Field(
        alias="class", description="Name of a class, not `default`.", examples=["business"]
    )


class SiteShare(LineShare):
    """The share of all that is exchanged with another site's prefixes, of whatever class."""

    site: Name = Field(description="Name of one of the `peers`.", examples=["hq"])


class Shaping(Section):
    """What the line carries. Packets then wait in order here and not in a modem's long queue."""

    up: Annotated[Rates, BetweenTwo()] = Field(
        description="Rate to send at, a little below what the line carries, 100 kbit/s to "
        "10 Gbit/s; or `min` and `max`, between which it is learned.",
        examples=["19 Mbit/s", {"min": "2 Mbit/s", "max": "30 Mbit/s"}],
    )
    down: Annotated[Rates, BetweenTwo()] = Field(
        description="Rate to receive at: senders are held back to it. Or `min` and `max`.",
        examples=["95 Mbit/s"],
    )
    overhead: Annotated[int, Field(ge=0, le=255)] = Field(
        default=18,
        description="Octets that the line adds to each IP packet: Ethernet and cable 18, VDSL2 "
        "22, VDSL2 with PPPoE 30.",
        examples=[18],
    )
    classes: list[ClassShare] = Field(
        default=[],
        description="Classes with a share of their own, in both directions.",
        examples=[[{"class": "business", "guarantee": "40 %"}]],
    )
    sites: list[SiteShare] = Field(
        default=[],
        description="Other sites with a share of their own, in both directions.",
        examples=[[{"site": "hq", "guarantee": "30 %"}]],
    )
