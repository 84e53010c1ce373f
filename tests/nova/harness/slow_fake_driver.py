"""Nova's own fake hypervisor, with reboots that take time, fail or hang as the file of knobs says.

The file (its path is in BULKRESTART_NOVA_KNOBS) is read at each reboot:

    {"reboot_seconds": 3}                  how long a reboot takes
    {"reboot_fail": "dead"}                it fails and leaves the guest off: Nova puts the server in ERROR
    {"reboot_fail": "alive"}               it fails and the guest still runs: Nova leaves it ACTIVE
    {"reboot_hang": true}                  it takes an hour: a dead host, as the API sees it
    {"spared": [ids]}                      none of this for these servers
"""

import json
import os
import time
from pathlib import Path

from nova import exception
from nova.compute import power_state
from nova.virt import fake

KNOBS = Path(os.environ["BULKRESTART_NOVA_KNOBS"])


class SlowFakeDriver(fake.FakeDriver):
    """A host with room for every server of a test."""

    vcpus = 100_000
    memory_mb = 100_000_000
    local_gb = 100_000_000

    def reboot(self, context, instance, network_info, reboot_type, **options):
        knobs = json.loads(KNOBS.read_text())
        if instance.uuid not in knobs.get("spared", []):
            time.sleep(3600 if knobs.get("reboot_hang") else float(knobs.get("reboot_seconds", 0)))
            if mode := knobs.get("reboot_fail"):
                if mode == "dead":
                    self.instances[instance.uuid].state = power_state.SHUTDOWN
                raise exception.InstanceRebootFailure(reason="the knobs say so")
        return super().reboot(context, instance, network_info, reboot_type, **options)

    # The fake driver does nothing here, and Nova would then find a running guest.
    def pause(self, instance):
        self.instances[instance.uuid].state = power_state.PAUSED

    def unpause(self, instance):
        self.instances[instance.uuid].state = power_state.RUNNING

    def suspend(self, context, instance):
        self.instances[instance.uuid].state = power_state.SUSPENDED

    def resume(self, context, instance, network_info, *arguments, **options):
        self.instances[instance.uuid].state = power_state.RUNNING
