"""What is told of a flow: its class, the rule that put it there and the site that it goes to."""

from dataclasses import replace

from appliance.api.problems import UnknownName
from appliance.config.flow import Flow
from appliance.config.intent import Intent
from appliance.contract.decision import Classified
from appliance.core.classify import classify, goes_to, lan_of


def classified(intent: Intent, flow: Flow) -> Classified:
    """All but the carriers, which only a running box knows. Raises UnknownName.

    A flow without a LAN is taken to come from the one that its source is in.
    """
    lans = [lan.name for lan in intent.lans]
    if flow.lan is None:
        flow = replace(flow, lan=lan_of(intent, flow.source))
    elif flow.lan not in lans:
        msg = f"There is no LAN {flow.lan!r}; there is {', '.join(lans) or 'none'}."
        raise UnknownName(msg)
    found = classify(intent, flow)
    return Classified(
        class_name=found.traffic_class.name,
        rule=found.match.rule if found.match is not None else "no match takes it",
        lan=flow.lan,
        dscp=found.dscp,
        set_dscp=found.traffic_class.set_dscp,
        site=goes_to(intent, flow.destination),
        carriers=(),
    )
