"""One YAML file -> `Intent`, or every reason why not.

`parse_config` is pure. `load_config` reads the one file and nothing else: keys stay where they are,
in files whose names are relative to the folder of the configuration.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from types import MappingProxyType

from appliance.config import intent, schema
from appliance.config.catalogue import known
from appliance.config.checks import DEFAULT_CLASS, check
from appliance.config.defaults import SLAS, default_classes
from appliance.config.errors import ConfigError, Finding, Problem
from appliance.config.intent import Intent
from appliance.config.line import Shaping
from appliance.config.migrate import Unsupported, migrate
from appliance.config.rules import rules_of
from appliance.config.shaping import least_guarantee
from appliance.config.validate import validate
from appliance.config.yaml import MAX_OCTETS, Document, Unreadable, parse_yaml
from appliance.contract.ids import ClassName, Label, SiteId, SiteName, Slot, UplinkName

MAX_PROBLEMS = 1000  # told in full; nobody mends more at a time

_DEFAULT_INDEX = 15  # fixed, so that its flows keep their mark when classes come and go
_NO_SLAS: Mapping[str, intent.Sla] = MappingProxyType({})
_IDLE_US = 1_000_000
_METERED_IDLE_US = 500_000


def load_config(path: FilePath) -> Intent:
    """Read a configuration file. Raises ConfigError, also when the file cannot be read."""
    return parse_config(read_config(path), str(path))


def read_config(path: FilePath) -> str:
    """The text of a configuration file, a little more than it may have. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_OCTETS + 1)
    except OSError as error:
        problem = Problem("", 1, 1, f"cannot be read: {error.strerror or error}")
        raise ConfigError(str(path), [problem]) from error
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        column = error.start - octets.rfind(b"\n", 0, error.start)
        problem = Problem("", line, column, "not UTF-8", "save the file as UTF-8")
        raise ConfigError(str(path), [problem]) from error


def parse_config(text: str, name: str, own_public_key: str | None = None) -> Intent:
    """The intent that a text states. `name` is what errors call the file.

    With the box's own public key given, a peer that has the same key is found too. Raises
    ConfigError with all problems, in the order of the file.
    """
    try:
        document = parse_yaml(text)
    except Unreadable as error:
        raise ConfigError(name, _in_order(error.problems)) from None
    config, findings = _judge(document, own_public_key)
    problems = [document.problem(each.path, each.message, each.hint) for each in findings]
    problems.extend(document.problems)
    if problems or config is None:
        raise ConfigError(name, _in_order(problems))
    return compile_intent(config)


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    ordered = sorted(problems, key=lambda each: (each.line, each.column))
    told, rest = ordered[:MAX_PROBLEMS], ordered[MAX_PROBLEMS:]
    if rest:
        told.append(Problem("", rest[0].line, rest[0].column, f"{len(rest)} more from here on"))
    return told


def _judge(
    document: Document, own_public_key: str | None
) -> tuple[schema.Config | None, list[Finding]]:
    if not isinstance(document.value, dict):
        what = "the file is empty" if document.value is None else "the file is not a mapping"
        return None, [Finding((), what, f"begin it with `version: {schema.VERSION}`")]
    try:
        tree, findings = migrate(document.value)
    except Unsupported as error:
        return None, [error.finding]
    config, parts, wrong = validate(tree, document.broken)
    return config, [*findings, *wrong, *check(parts, own_public_key)]


def compile_intent(config: schema.Config) -> Intent:
    """A validated and checked configuration with every default filled in."""
    uplinks = tuple(_uplink(each, index + 1) for index, each in enumerate(config.uplinks))
    applications = known(config.applications)
    if config.classes is None:
        stated, slas = default_classes(applications.values()), SLAS
        last = frozenset(applications) - {each.name for each in config.applications}
    else:
        stated, slas, last = tuple(config.classes), _NO_SLAS, None
    classes = (
        *(
            _class(each, each.slot or index + 1, applications, last)
            for index, each in enumerate(stated)
        ),
        intent.TrafficClass(ClassName(DEFAULT_CLASS), _DEFAULT_INDEX, ()),
    )
    policies = {policy.class_name: policy for policy in config.policies}
    unstated = tuple((label,) for label in dict.fromkeys(uplink.label for uplink in uplinks))
    return Intent(
        site=SiteName(config.site.name),
        site_id=SiteId(config.site.id),
        overlay=config.fleet.overlay,
        uplinks=uplinks,
        lans=tuple(
            intent.Lan(each.name, each.device, tuple(each.address), each.trust_dscp, each.dns)
            for each in config.lans
        ),
        peers=tuple(_peer(each) for each in config.peers),
        classes=classes,
        policies=tuple(
            _policy(each.name, policies.get(each.name), unstated, slas.get(each.name))
            for each in classes
        ),
        probing=_probing(config.probing),
        listen_port_base=config.wireguard.listen_port_base,
        private_key_file=config.wireguard.private_key_file,
        gateways=tuple(SiteName(name) for name in config.gateways),
        name_servers=tuple(config.dns.servers),
    )


def _uplink(uplink: schema.Uplink, position: int) -> intent.Uplink:
    static = tuple(address for address in uplink.address if address is not None)
    health, shaping = uplink.health, uplink.shaping
    return intent.Uplink(
        name=UplinkName(uplink.name),
        slot=Slot(uplink.slot or position),
        label=Label(uplink.label or uplink.name),
        device=uplink.device,
        method=intent.Method.STATIC if static else intent.Method.DHCP,
        addresses=static,
        gateways=tuple(uplink.gateway),
        metered=uplink.metered,
        weight=uplink.weight,
        targets=tuple(health.targets) if health else (),
        quorum=health.quorum if health else 1,
        shaping=_shaping(shaping) if shaping else None,
    )


def _shaping(shaping: Shaping) -> intent.Shaping:
    up, down = shaping.up, shaping.down
    return intent.Shaping(
        up.most_bps,
        down.most_bps,
        shaping.overhead,
        up_least_bps=None if up.least_bps == up.most_bps else up.least_bps,
        down_least_bps=None if down.least_bps == down.most_bps else down.least_bps,
        shares=tuple(
            intent.ClassShare(
                ClassName(each.class_name),
                least_guarantee(each),
                1.0 if each.ceiling is None else each.ceiling,
            )
            for each in shaping.classes
        ),
        sites=tuple(
            intent.SiteShare(
                SiteName(each.site),
                each.guarantee,
                1.0 if each.ceiling is None else each.ceiling,
            )
            for each in shaping.sites
        ),
    )


def _peer(peer: schema.Peer) -> intent.Peer:
    return intent.Peer(
        name=SiteName(peer.name),
        site_id=SiteId(peer.id),
        public_key=peer.public_key,
        uplinks=tuple(
            intent.PeerUplink(
                slot=Slot(each.slot or index + 1),
                label=Label(each.label),
                endpoints=tuple(each.endpoint),
                metered=each.metered,
                down_bps=each.down,
            )
            for index, each in enumerate(peer.uplinks)
        ),
        prefixes=tuple(peer.prefixes),
        preshared_key_file=peer.preshared_key_file,
        internet=peer.internet,
    )


def _class(
    each: schema.TrafficClass,
    index: int,
    applications: Mapping[str, schema.Application],
    last: Collection[str] | None,
) -> intent.TrafficClass:
    """`last` names the applications whose rules come after all others; None in a file's class."""
    return intent.TrafficClass(
        name=ClassName(each.name),
        index=index,
        matches=tuple(
            replace(rule, is_shipped=application is not None and application.name in (last or ()))
            for place, match in enumerate(each.match, start=1)
            for application, rule in rules_of(
                match, f"match {place}" if last is None else "by default", applications
            )
        ),
        set_dscp=each.set_dscp,
    )


def _policy(
    name: ClassName,
    policy: schema.Policy | None,
    unstated: tuple[tuple[Label, ...], ...],
    sla: intent.Sla | None,
) -> intent.Policy:
    """`unstated` and `sla` are what a class without a policy has."""
    if policy is None:
        return intent.Policy(name, unstated, sla or intent.Sla())
    tiers = tuple(tuple(Label(label) for label in tier) for tier in policy.tiers or ())
    return intent.Policy(
        class_name=name,
        tiers=tiers or unstated,
        sla=_sla(policy),
        mode=policy.mode,
        fallback=policy.fallback,
        metered=policy.metered,
        hold_s=policy.hold / 1e6,
        internet=policy.internet,
        when=policy.when or intent.When.ALWAYS,
    )


def _sla(policy: schema.Policy) -> intent.Sla:
    loss = policy.sla.loss
    if loss is None and policy.mode is intent.Mode.BOND:
        loss = intent.BOND_LOSS
    return intent.Sla(loss, policy.sla.delay, policy.sla.jitter, policy.sla.mos)


def _probing(probing: schema.Probing) -> intent.Probing:
    idle_us = probing.idle_interval or max(_IDLE_US, probing.interval)
    metered_us = probing.metered_interval or max(_METERED_IDLE_US, probing.interval)
    return intent.Probing(
        interval_s=probing.interval / 1e6,
        idle_interval_s=idle_us / 1e6,
        metered_interval_s=metered_us / 1e6,
        key_file=probing.key_file,
        port=probing.port,
    )
