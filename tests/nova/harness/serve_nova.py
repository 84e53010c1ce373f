"""Serve Nova: its own conductor, scheduler, compute and API in this one process: serve_nova.py FOLDER SOCKET.

No code of Nova is changed. Nova's own test fixtures stand in for Neutron and Glance and put a lock around the
writers of sqlite; RPC is oslo.messaging's driver for one process.
"""

import os
import sys

os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "1"
from nova import monkey_patch

monkey_patch.patch(backend="threading")  # before anything else of Nova

import collections
import threading

import fixtures
import nova.conf
import nova.virt
import oslo_db.sqlalchemy.engines
import os_brick
import os_vif
import slow_fake_driver
from nova import config, context, objects, service
from nova.api.openstack import wsgi_app
from nova.compute import rpcapi as compute_rpcapi
from nova.conductor import rpcapi as conductor_rpcapi
from nova.objects import host_mapping
from nova.scheduler import rpcapi as scheduler_rpcapi
from nova.scheduler.client.report import SchedulerReportClient
from nova.tests.fixtures import GlanceFixture, NeutronFixture
from nova.tests.fixtures.nova import DatabaseWriteLock
from oslo_log import log as logging
from paste import deploy
from serving import InheritingServer, die_with_parent

CONF = nova.conf.CONF


class FixtureHost(fixtures.Fixture):
    """What Nova's fixtures expect of the test case that uses them."""

    def flags(self, group=None, **options):
        for name, value in options.items():
            CONF.set_override(name, value, group)

    def stub_out(self, name, replacement):
        self.useFixture(fixtures.MonkeyPatch(name, replacement))


class FairRLock:
    """A re-entrant lock, first come first served: a plain one starves some writers for a minute."""

    def __init__(self):
        self._guard = threading.Lock()
        self._waiting = collections.deque()
        self._owner = None
        self._depth = 0

    def __enter__(self):
        me = threading.get_ident()
        with self._guard:
            if self._owner in (None, me):
                self._owner = me
                self._depth += 1
                return self
            turn = threading.Event()
            self._waiting.append((me, turn))
        turn.wait()
        return self

    def __exit__(self, *exception):
        with self._guard:
            self._depth -= 1
            if self._depth:
                return
            self._owner = None
            if self._waiting:
                self._owner, turn = self._waiting.popleft()
                self._depth = 1
                turn.set()


def replace_neighbours():
    """Put Nova's fixtures in the place of Neutron, Glance and a database that takes concurrent writers."""
    host = FixtureHost()
    host.setUp()
    writers = host.useFixture(DatabaseWriteLock())
    writers._locks = collections.defaultdict(FairRLock)
    # oslo.db yields to other threads at each check-in of a connection, here while the writers' lock is held.
    oslo_db.sqlalchemy.engines._thread_yield = lambda *arguments: None
    host.useFixture(GlanceFixture(host))
    host.useFixture(NeutronFixture(host))
    # Needed for reshapes and PCI devices only; it reads every server of the host again for each build.
    SchedulerReportClient.get_allocations_for_provider_tree = lambda *arguments, **options: {}


def start_services():
    """Start conductor, scheduler and compute, each before the next is made: the later ones ask the earlier."""
    for binary, topic, options in (
        ("nova-conductor", conductor_rpcapi.RPC_TOPIC, {}),
        ("nova-scheduler", scheduler_rpcapi.RPC_TOPIC, {}),
        ("nova-compute", compute_rpcapi.RPC_TOPIC, {"topic_alt": compute_rpcapi.RPC_TOPIC_ALT}),
    ):
        service.Service.create(binary=binary, topic=topic, **options).start()
    host_mapping.discover_hosts(context.get_admin_context())


def main():
    folder, descriptor = sys.argv[1], int(sys.argv[2])
    # Nova looks for its driver below nova.virt.
    sys.modules["nova.virt.slow_fake_driver"] = nova.virt.slow_fake_driver = slow_fake_driver
    objects.register_all()
    config.parse_args(["nova", "--config-file", f"{folder}/etc/nova.conf"])
    logging.setup(CONF, "nova")
    os_brick.setup(CONF)
    os_vif.initialize()
    replace_neighbours()
    objects.Service.enable_min_version_cache()
    start_services()
    os.environ["OS_NOVA_CONFIG_DIR"] = f"{folder}/etc"
    wsgi_app._setup_service(CONF.host, "osapi_compute")
    app = deploy.loadapp(f"config:{folder}/etc/api-paste.ini", name="osapi_compute")
    InheritingServer(descriptor, app, threads=64).start()


die_with_parent()
try:
    main()
except BaseException:
    sys.__excepthook__(*sys.exc_info())
    sys.stderr.flush()
    os._exit(1)  # the threads of services that had started would keep the process
