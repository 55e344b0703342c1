"""One direction of an uplink's line: what it does to packets, by netem, outside of the site.

The impairments live in the router at the far end of the uplink. Towards the site (`down`) netem is
the root queue of the router's device. From the site (`up`) packets are diverted, on arrival at the
router, through an IFB device that carries netem; it is set up when it is first needed, so a
line without impairments upwards costs nothing.
"""

import dataclasses
import zlib
from dataclasses import dataclass

from lab.machine import Machine

_FAST = "100gbit"  # with any rate, netem keeps packets in order under jitter


@dataclass(frozen=True, slots=True)
class Line:
    """What one direction does to packets. Ratios are 0..1."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0  # uniform in delay +- jitter; the order of packets is kept
    loss: float = 0.0
    loss_burst: float = 1.0  # mean length of a run of losses, in packets
    duplicate: float = 0.0
    reorder: float = 0.0  # this share of packets jumps the queue; needs delay_ms
    rate_mbit: float | None = None
    buffer_packets: int = 10_000  # at a rate limit: how much bufferbloat the line has

    @property
    def is_clean(self) -> bool:
        return self == Line(buffer_packets=self.buffer_packets)

    def netem(self, seed: int) -> str:
        """The parameters of `tc qdisc ... netem`."""
        words = [f"limit {self.buffer_packets}"]
        if self.delay_ms or self.jitter_ms:
            words.append(f"delay {_us(self.delay_ms)} {_us(self.jitter_ms)}")
        if self.loss and self.loss_burst > 1 and self.loss < 1:
            leave = 1 / self.loss_burst
            enter = self.loss * leave / (1 - self.loss)
            words.append(f"loss gemodel {_percent(enter)} {_percent(leave)} 100% 0%")
        elif self.loss:
            words.append(f"loss {_percent(self.loss)}")
        if self.duplicate:
            words.append(f"duplicate {_percent(self.duplicate)}")
        if self.reorder:
            words.append(f"reorder {_percent(self.reorder)}")
        if self.rate_mbit is not None:
            rate = f"{round(self.rate_mbit * 1e6)}bit"
        else:
            rate = _FAST if self.jitter_ms and not self.reorder else "0bit"
        words.append(f"rate {rate}")  # always stated: netem keeps the old rate when it is not
        words.append(f"seed {seed}")
        return " ".join(words)


class Direction:
    """`uplink.down` or `uplink.up`: change it while packets flow."""

    def __init__(self, router: Machine, device: str, *, ifb: str | None, seed: int) -> None:
        self._router = router
        self._device = device
        self._ifb = ifb  # None: this is the direction towards the site
        self._seed = seed
        self._changes = 0
        self._installed = False
        self._has_ifb = False
        self._is_cut = False
        self.line = Line()

    def set(self, line: Line) -> None:
        """Replace every property of this direction. Packets on their way keep their old fate."""
        self.line = line
        self._apply()

    def change(self, **properties: object) -> None:
        """Change some properties (fields of Line) and keep the others."""
        self.set(dataclasses.replace(self.line, **properties))  # type: ignore[arg-type]

    def cut(self) -> None:
        """Drop every packet of this direction silently; packets already on their way arrive."""
        self._is_cut = True
        self._apply()

    def heal(self) -> None:
        """Undo `cut`; the properties are as before."""
        self._is_cut = False
        self._apply()

    def reinstall(self) -> None:
        """The device was made anew: set up again what it had."""
        self._installed = False
        self._apply()

    def prepare(self) -> None:
        """Set up what impairs, though there is nothing to impair yet: the next change is quick."""
        if not self._installed:
            self._install()

    def _apply(self) -> None:
        if not self._effective.is_clean or self._installed:
            self._install()

    @property
    def _effective(self) -> Line:
        return dataclasses.replace(self.line, loss=1.0) if self._is_cut else self.line

    def _install(self) -> None:
        commands = []
        if self._ifb is not None and not self._installed:
            if not self._has_ifb:
                self._router.ip(f"link add {self._ifb} type ifb", f"link set {self._ifb} up")
                self._has_ifb = True
            commands = [
                f"qdisc replace dev {self._device} clsact",
                f"filter replace dev {self._device} ingress pref 10 handle 1 matchall "
                f"action mirred egress redirect dev {self._ifb}",
            ]
        target = self._ifb or self._device
        # every change draws a new random sequence, the same one in every run
        seed = zlib.crc32(f"{self._seed} {target} {self._changes}".encode())
        self._changes += 1
        commands.append(
            f"qdisc replace dev {target} root handle 1: netem {self._effective.netem(seed)}"
        )
        self._router.tc(*commands)
        self._installed = True


def _us(milliseconds: float) -> str:
    return f"{round(milliseconds * 1000)}us"


def _percent(ratio: float) -> str:
    return f"{ratio * 100:.6f}%"
