"""Small configurations for the tests: a sound one, and the sound one with one thing changed."""

from pathlib import Path

import pytest

from appliance.config.errors import ConfigError, Problem
from appliance.config.load import parse_config

ROOT = Path(__file__).resolve().parents[3]
KEYS = (
    "+4hzXczQNV1K7/nIAqDlvLUUdYy7a/Hq3I2PEx0KfFM=",
    "AFIxc8yYrZOyCjTTOWS4GxQ9vT7bOTuxVf9Ah8BWmnU=",
)

SOUND = f"""\
version: 1
site: {{name: branch-a, id: 1}}
fleet: {{overlay: "fd12:3456:789a::/48"}}
uplinks:
  - name: fibre
    device: eth0
    address: [203.0.113.2/28, "2001:db8:1::2/64"]
    gateway: [203.0.113.1, "fe80::1"]
    health:
      targets: [icmp 192.0.2.1, dns 192.0.2.53 example.net, tcp 192.0.2.80 443]
      quorum: 2
  - {{name: lte, device: wwan0, address: dhcp, metered: true}}
lans:
  - {{name: office, device: lan0, address: 192.168.1.1/24}}
peers:
  - name: cloud
    id: 2
    public_key: {KEYS[0]}
    uplinks: [{{label: transit, endpoint: 198.51.100.1}}]
    prefixes: [192.168.2.0/24]
  - name: branch-b
    id: 3
    public_key: {KEYS[1]}
    uplinks: [{{label: fibre, endpoint: 198.51.100.9}}, {{label: lte}}]
    prefixes: [192.168.3.0/24]
classes:
  - name: voice
    match: [{{dscp: ef}}]
policies:
  - class: voice
    tiers: [fibre, lte]
    sla: {{loss: 1 %, delay: 150 ms}}
probing: {{interval: 50 ms}}
"""


def changed(old: str, new: str, text: str = SOUND) -> str:
    """The text with its only `old` replaced, so that a test cannot miss what it means to change."""
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
    return text.replace(old, new)


def problems_of(text: str, own_public_key: str | None = None) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "box.yaml", own_public_key)
    assert caught.value.problems
    return caught.value.problems
