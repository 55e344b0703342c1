"""The classes of a box whose file names none, and what each wants of a path (docs/adr/0011).

A sender that marks its packets is believed, because it knows more of its flow than a port tells. To
a flow without a mark its application gives the class. So the two never compete.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from appliance.config import intent
from appliance.config.intent import DefaultClass
from appliance.config.scalars import DSCP
from appliance.config.schema import Application, Match, TrafficClass

# RFC 4594 figure 3, and RFC 5865 (VA), RFC 8622 (LE): calls and meetings with their signalling;
# what somebody waits for, with what keeps the network itself running; multimedia streams and
# (commonly AF3x) the work of an office; what may take whatever is left. RFC 8837 has browsers
# mark calls with EF and AF4x, and RFC 8325 has wireless networks treat them alike. AF1x is long
# transfers that want no delay bounded and is left to the default class.
_MARKS = {
    DefaultClass.REALTIME: ("ef", "va", "cs5", "cs4", "af41", "af42", "af43"),
    DefaultClass.INTERACTIVE: ("cs7", "cs6", "cs2", "af21", "af22", "af23"),
    DefaultClass.BUSINESS: ("cs3", "af31", "af32", "af33"),
    DefaultClass.BULK: ("cs1", "le"),
}

# Delays are two-way. ITU-T G.114: up to 150 ms one-way most calls are not impaired. ITU-T G.1010:
# 1 % loss is what speech bears, 200 ms one-way what a person at a terminal does. ITU-T Y.1541
# class 3: 400 ms one-way for transactions. TCP gets little out of a path that loses 2 or 3 %.
SLAS: Mapping[str, intent.Sla] = MappingProxyType(
    {
        DefaultClass.REALTIME: intent.Sla(loss_ratio=0.01, delay_us=300_000, jitter_us=30_000),
        DefaultClass.INTERACTIVE: intent.Sla(loss_ratio=0.01, delay_us=400_000),
        DefaultClass.BUSINESS: intent.Sla(loss_ratio=0.02, delay_us=800_000),
        DefaultClass.BULK: intent.Sla(),
        DefaultClass.DEFAULT: intent.Sla(loss_ratio=0.03),
    }
)


def default_classes(applications: Iterable[Application]) -> tuple[TrafficClass, ...]:
    """The classes beside `default`, as a file would state them: by mark, then by application."""
    named: dict[DefaultClass, list[str]] = {name: [] for name in DefaultClass}
    for each in applications:
        named[each.class_name].append(each.name)
    return tuple(
        TrafficClass.model_validate(
            {
                "name": name.value,
                "match": [
                    Match.model_validate({"dscp": list(marks)}),
                    *_unmarked(named[name]),
                ],
            }
        )
        for name, marks in _MARKS.items()
    )


def _unmarked(names: list[str]) -> Iterable[Match]:
    if names:
        yield Match.model_validate({"dscp": DSCP["df"], "application": names})
