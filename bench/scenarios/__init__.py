"""All scenarios, in the order in which they run and are reported."""

from bench.scenarios.attack import H2_ATTACK, Attack
from bench.scenarios.contract import Scenario
from bench.scenarios.files import FILES
from bench.scenarios.lifecycle import LIFECYCLES
from bench.scenarios.load import LOADS
from bench.scenarios.memory import MEMORIES
from bench.scenarios.start import STARTS
from bench.scenarios.websocket import SOCKETS

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (*LOADS, *FILES, *SOCKETS, *MEMORIES, *STARTS, *LIFECYCLES, Attack(), H2_ATTACK)
}
# The scenarios and servers of a quick run without names.
QUICK = ("headers-varied", "hello", "fastapi")
QUICK_SERVERS = ("limit", "aserver", "uvicorn-httptools", "granian", "h2corn", "peregrine")
