"""The types of single values in the YAML surface: a parser and the JSON Schema of each.

And what holds for every mapping.

The parser is what counts. The JSON Schema is for editors: it describes the form and cannot say all.
"""

from collections.abc import Callable
from ipaddress import IPv6Network
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from appliance.config import addresses, scalars
from appliance.config.intent import (
    Address,
    DefaultClass,
    Fallback,
    Interface,
    Internet,
    Mode,
    Network,
    Protocol,
    Target,
    When,
)

MAX_SLOT = 15


class OneOrMany:
    """Marks a list that may be written without brackets when it has one item."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_as_list, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


class BetweenTwo:
    """Marks a mapping of the least and the most rate that may be written as one rate."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def both(value: object) -> object:
            if isinstance(value, dict):
                return value
            rate_bps = parse_rate(value)
            return source.model_construct(least_bps=rate_bps, most_bps=rate_bps)

        return core_schema.no_info_before_validator_function(both, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "pattern": scalars.RATE_PATTERN}, handler(schema)]}


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _json(**schema: Any) -> WithJsonSchema:
    return WithJsonSchema(schema)


def by_default(text: str, parse: Callable[[object], Any]) -> dict[str, Any]:
    """A default that people read as the text that they would write."""
    return {"default": parse(text), "json_schema_extra": {"default": text}}


def _words(*words: str) -> WithJsonSchema:
    return _json(type="string", enum=list(words))


parse_interval = scalars.between(scalars.parse_duration, "10 ms", "10 s")
parse_limit = scalars.between(scalars.parse_duration, "100 us", "10 s")
parse_hold = scalars.between(scalars.parse_duration, "1 s", "60 min")
parse_rate = scalars.between(scalars.parse_rate, "100 kbit/s", "10 Gbit/s")
# A limit of 0 % could not be told from bad luck, and one above 50 % is no service.
parse_loss = scalars.between(scalars.parse_ratio, "0.01 %", "50 %")
parse_share = scalars.between(scalars.parse_ratio, "1 %", "100 %")

_DURATION = _json(type="string", pattern=scalars.DURATION_PATTERN)
_RATIO = _json(type="string", pattern=scalars.RATIO_PATTERN)
_RATE = _json(type="string", pattern=scalars.RATE_PATTERN)
_HOST = {"type": "string", "pattern": r"^[0-9A-Fa-f.:]+$"}
_NET = {"type": "string", "pattern": r"^[0-9A-Fa-f.:]+/[0-9]{1,3}$"}

Name = Annotated[
    str,
    PlainValidator(scalars.parse_name),
    _json(type="string", pattern=scalars.NAME_PATTERN),
]
Device = Annotated[
    str,
    PlainValidator(scalars.parse_device),
    _json(type="string", pattern=scalars.DEVICE_PATTERN),
]
SecretFile = Annotated[
    str,
    PlainValidator(scalars.parse_file),
    _json(type="string", pattern=scalars.FILE_PATTERN, maxLength=255),
]
PublicKey = Annotated[
    str,
    PlainValidator(scalars.parse_public_key),
    _json(type="string", pattern=scalars.KEY_PATTERN),
]
MacAddress = Annotated[
    str,
    PlainValidator(scalars.parse_mac),
    _json(type="string", pattern=scalars.MAC_PATTERN),
]
Domain = Annotated[
    str,
    PlainValidator(scalars.parse_domain),
    _json(type="string", pattern=scalars.DOMAIN_PATTERN, maxLength=253),
]
WebAddress = Annotated[
    str,
    PlainValidator(scalars.parse_url),
    _json(type="string", pattern=scalars.URL_PATTERN),
]
Title = Annotated[
    str,
    PlainValidator(scalars.parse_title),
    _json(type="string", minLength=1, maxLength=scalars.MAX_TITLE),
]
SlotNumber = Annotated[int, Field(ge=1, le=MAX_SLOT)]
SiteNumber = Annotated[int, Field(ge=1, le=65535)]
Port = Annotated[int, Field(ge=1, le=65535)]

Interval = Annotated[int, PlainValidator(parse_interval), _DURATION]  # us
Limit = Annotated[int, PlainValidator(parse_limit), _DURATION]  # us
Hold = Annotated[int, PlainValidator(parse_hold), _DURATION]  # us
Rate = Annotated[int, PlainValidator(parse_rate), _RATE]  # bit/s
Share = Annotated[float, PlainValidator(parse_share), _RATIO]  # ratio
Loss = Annotated[float, PlainValidator(parse_loss), _RATIO]  # ratio

Overlay = Annotated[IPv6Network, PlainValidator(addresses.parse_overlay), WithJsonSchema(_NET)]
LanAddress = Annotated[Interface, PlainValidator(addresses.parse_interface), WithJsonSchema(_NET)]
UplinkAddress = Annotated[
    Interface | None,  # None is `dhcp`
    PlainValidator(addresses.parse_uplink_address),
    _json(anyOf=[{"const": addresses.DHCP}, _NET]),
]
Gateway = Annotated[Address, PlainValidator(addresses.parse_address), WithJsonSchema(_HOST)]
Endpoint = Annotated[Address, PlainValidator(addresses.parse_endpoint), WithJsonSchema(_HOST)]
SitePrefix = Annotated[Network, PlainValidator(addresses.parse_site_prefix), WithJsonSchema(_NET)]
FlowPrefix = Annotated[Network, PlainValidator(addresses.parse_network), WithJsonSchema(_NET)]
HealthTarget = Annotated[
    Target,
    PlainValidator(addresses.parse_target),
    _json(type="string", pattern=addresses.TARGET_PATTERN),
]

CodePoint = Annotated[
    int,
    PlainValidator(scalars.parse_dscp),
    _json(anyOf=[{"enum": list(scalars.DSCP)}, {"type": "integer", "minimum": 0, "maximum": 63}]),
]
PortRange = Annotated[
    tuple[int, int],
    PlainValidator(scalars.parse_ports),
    _json(
        anyOf=[
            {"type": "integer", "minimum": 1, "maximum": 65535},
            {"type": "string", "pattern": scalars.PORTS_PATTERN},
        ]
    ),
]
ProtocolName = Annotated[Protocol, PlainValidator(scalars.choice_of(Protocol)), _words(*Protocol)]
ModeName = Annotated[Mode, PlainValidator(scalars.choice_of(Mode)), _words(*Mode)]
WhenName = Annotated[When, PlainValidator(scalars.choice_of(When)), _words(*When)]
DefaultClassName = Annotated[
    DefaultClass, PlainValidator(scalars.choice_of(DefaultClass)), _words(*DefaultClass)
]
InternetName = Annotated[Internet, PlainValidator(scalars.choice_of(Internet)), _words(*Internet)]
FallbackName = Annotated[Fallback, PlainValidator(scalars.choice_of(Fallback)), _words(*Fallback)]
Tier = Annotated[list[Name], Field(min_length=1), OneOrMany()]


class Section(BaseModel):
    """What holds for every mapping of the file."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_by_name=False
    )
