"""What every benchmark has to reach, in one place: the harness and the documents read it here."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Target:
    """A number of the lab and its limit."""

    name: str
    bench: str  # its scenario is tests/bench/lab_<bench>.py
    what: str
    sense: Literal["<=", ">="]
    limit: float
    unit: str

    def is_met(self, value: float) -> bool:
        """Does a measured value reach the target? NaN never does."""
        return value <= self.limit if self.sense == "<=" else value >= self.limit

    @property
    def text(self) -> str:
        """The limit as a person reads it: "<= 0.8 ratio"."""
        return f"{self.sense} {self.limit:g} {self.unit}".replace(" ratio", "")


TARGETS = (
    Target(
        "blackout_20ms_ratio",
        "blackout",
        "packets lost when the far uplink is cut one way, 20 ms probes, over those BIRD + BFD "
        "(20 ms x 3) loses on the same planes",
        "<=",
        0.8,
        "ratio",
    ),
    Target(
        "blackout_50ms_ratio",
        "blackout",
        "the same with 50 ms probes and BFD at 50 ms x 3",
        "<=",
        0.6,
        "ratio",
    ),
    Target(
        "carrier_loss_lost",
        "carrier",
        "packets lost when a local uplink loses its carrier, 200 packets/s",
        "<=",
        3,
        "packets",
    ),
    Target(
        "brownout_delay_p95_s",
        "brownout",
        "+80 ms on a path of a class whose SLA forbids it: until the class has moved, 95th "
        "percentile",
        "<=",
        0.6,
        "s",
    ),
    Target(
        "brownout_loss_p95_s",
        "brownout",
        "3 % loss on a path of a class whose SLA is 1 %, no traffic: the same",
        "<=",
        3,
        "s",
    ),
    Target(
        "brownout_loss_traffic_p95_s",
        "brownout",
        "the same with 200 packets/s of traffic",
        "<=",
        2,
        "s",
    ),
    Target(
        "noisy_line_moves",
        "noisy",
        "moves in 30 minutes on a healthy but noisy line: 0.3 % random loss, 5 ms jitter, SLA 1 %",
        "<=",
        0,
        "moves",
    ),
    Target(
        "flapping_moves_per_min",
        "flapping",
        "most voluntary moves within any 60 s while a line flaps with a period of 30 s for 10 "
        "minutes, never longer on the dead path than in a blackout",
        "<=",
        1,
        "moves",
    ),
    Target(
        "tcp_sessions_survived",
        "sessions",
        "of 100 long-lived TCP sessions, those that survive a blackout",
        ">=",
        100,
        "sessions",
    ),
    Target(
        "sigkill_lost",
        "sigkill",
        "packets lost while the supervisor is dead for 60 s under 1,000 packets/s, and while it "
        "starts again",
        "<=",
        0,
        "packets",
    ),
    Target(
        "sigkill_ops",
        "sigkill",
        "operations that the restarted supervisor applies",
        "<=",
        0,
        "operations",
    ),
    Target(
        "goodput_ratio",
        "goodput",
        "TCP goodput through classes and firewalls at both edges over that of plain WireGuard, the "
        "supervisors stopped",
        ">=",
        0.95,
        "ratio",
    ),
    Target(
        "ef_added_mean_ms",
        "shaping",
        "EF round trip under 4 greedy TCP flows each way on a 20 Mbit/s line, over that of the "
        "idle line: mean",
        "<=",
        1,
        "ms",
    ),
    Target(
        "ef_added_p99_ms",
        "shaping",
        "the same: 99th percentile",
        "<=",
        5,
        "ms",
    ),
    Target(
        "shaped_goodput_ratio",
        "shaping",
        "TCP goodput under shaping, over the shaped rate, the worse direction",
        ">=",
        0.9,
        "ratio",
    ),
    Target(
        "breakout_recovery_s",
        "breakout",
        "from the silent death of an uplink until a new connection to the internet is made",
        "<=",
        1,
        "s",
    ),
    Target(
        "breakout_disturbed_flows",
        "breakout",
        "flows on the other uplink that ended or stalled meanwhile",
        "<=",
        0,
        "flows",
    ),
    Target(
        "autorate_ef_added_p95_ms",
        "autorate",
        "EF round trip on a line that steps 40, 8, 40 Mbit/s under 4 greedy TCP flows, from 3 s "
        "after each step, over that of the idle line: 95th percentile, the worse direction",
        "<=",
        15,
        "ms",
    ),
    Target(
        "autorate_used_ratio",
        "autorate",
        "IP packets that come through meanwhile, over what the line carries, the worst phase",
        ">=",
        0.75,
        "ratio",
    ),
    Target(
        "catalogue_match_ratio",
        "catalogue",
        "flows of the catalogue's applications that are in the right class: from the first packet "
        "on by ports, prefixes, or the name that was asked for; before any data by TLS and QUIC",
        ">=",
        1.0,
        "ratio",
    ),
    Target(
        "full_path_goodput_ratio",
        "goodput",
        "the same with the default classes, server names, and CAKE both ways at both edges",
        ">=",
        0.95,
        "ratio",
    ),
    Target(
        "offload_move_ms",
        "offload",
        "a TCP flow on the fast path whose class is moved: until it is on the new path only",
        "<=",
        20,
        "ms",
    ),
    Target(
        "class_share_error_ratio",
        "shares",
        "classes with guarantees, all wanting more than the line carries: how far the worst is "
        "from its share",
        "<=",
        0.1,
        "ratio",
    ),
    Target(
        "duplicate_cut_lost",
        "duplicate",
        "packets of a call in mode duplicate that are lost while one of its two lines is cut, "
        "twelve times, 200 packets/s in IPv4 and in IPv6",
        "<=",
        0,
        "packets",
    ),
    Target(
        "duplicate_cut_duplicates",
        "duplicate",
        "those of them that are delivered twice",
        "<=",
        0,
        "packets",
    ),
    Target(
        "duplicate_loss_ratio",
        "duplicate",
        "packets of such a call that are lost while each line loses 5 % independently",
        "<=",
        0.0035,
        "ratio",
    ),
    Target(
        "bond_ratio",
        "bond",
        "goodput of one TCP flow over two 20 Mbit/s lines of 10 and 25 ms in mode `bond`, over "
        "that of the better line alone",
        ">=",
        1.8,
        "ratio",
    ),
    Target(
        "bond_jitter_ratio",
        "bond",
        "the same with 3 ms of jitter and 0.1 % loss on both",
        ">=",
        1.5,
        "ratio",
    ),
    Target(
        "bond_death_gap_ms",
        "bond",
        "how long such a flow stalls when one of its lines dies",
        "<=",
        300,
        "ms",
    ),
    Target(
        "supervisor_cpu_ratio",
        "footprint",
        "share of the 1-GIPS core that a supervisor with 8 paths at 20 ms takes",
        "<=",
        0.03,
        "ratio",
    ),
    Target(
        "supervisor_rss_mib",
        "footprint",
        "its resident memory",
        "<=",
        90,
        "MiB",
    ),
    Target(
        "hub_cold_apply_s",
        "hub",
        "a hub with 1,000 sites x 4 planes: from an empty kernel to the whole plan",
        "<=",
        15,
        "s",
    ),
    Target(
        "hub_uplink_death_ms",
        "hub",
        "from the death of a local uplink of the hub to all traffic on the other",
        "<=",
        200,
        "ms",
    ),
    Target(
        "hub_probing_cpu_ratio",
        "hub",
        "share of the core for 4,000 probes/s sent and as many answered",
        "<=",
        0.6,
        "ratio",
    ),
    Target(
        "hub_rss_mib",
        "hub",
        "resident memory of the hub's supervisor",
        "<=",
        200,
        "MiB",
    ),
)


def target(name: str) -> Target:
    """The target of that name. Raises KeyError."""
    for each in TARGETS:
        if each.name == name:
            return each
    raise KeyError(name)
