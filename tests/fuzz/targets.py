"""Every parser that reads octets from outside. Add yours: a module with `TARGETS`, a line here."""

from tests.fuzz import (
    fuzz_config,
    fuzz_files,
    fuzz_hello,
    fuzz_recording,
    fuzz_stamp,
    fuzz_uplinks,
)
from tests.fuzz.harness import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (fuzz_config, fuzz_files, fuzz_hello, fuzz_recording, fuzz_stamp, fuzz_uplinks)
    for target in module.TARGETS
}
