"""Records events into a directory as fast as it can, until it is killed."""

import asyncio
import sys
from pathlib import Path

from appliance.config.load import load_config
from appliance.core.codec import encode_event
from appliance.core.decide import decide, initial_state
from appliance.core.events import IntentChanged, LoopStalled
from appliance.telemetry import recorder as module

EXAMPLE = Path(__file__).parents[3] / "examples" / "branch.yaml"


async def write(directory: Path) -> None:
    module.FLUSH_S = 0.001
    module.EVENTS_OCTETS = 400_000
    recorder = module.Recorder(directory, "run", encode_event, print)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(recorder.run())
        event = IntentChanged(load_config(EXAMPLE))
        state, _ = decide(initial_state(), event, 0.0)
        recorder.record_event(0.0, event, state)
        now = 0
        while True:
            await asyncio.sleep(0)
            if now % 1000 == 0 and recorder.is_waiting:
                continue  # what waits too long in memory is dropped, and told
            now += 1
            recorder.record_event(float(now), LoopStalled(0.1), state)


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1])))
