"""The configuration files of one run of two Keystones, Placement and Nova."""

import base64
import os
import shutil
from pathlib import Path

PASSWORD = "secret-of-all-users"
REGION = "RegionOne"
#: The same compute service, with the project in its URL, as the catalogues of older clouds have it.
OLDER_REGION = "RegionTwo"

KEYSTONE = """
[DEFAULT]
log_file = {folder}/{name}.log
use_stderr = false
public_endpoint = http://127.0.0.1:{own_port}
[database]
connection = sqlite:///{folder}/keystone.db?timeout=60
sqlite_synchronous = false
[token]
provider = fernet
expiration = {token_seconds}
[fernet_tokens]
key_repository = {folder}/fernet
[fernet_receipts]
key_repository = {folder}/fernet
[credential]
key_repository = {folder}/credential
[identity]
password_hash_rounds = 4
[cache]
enabled = true
backend = oslo_cache.dict
[oslo_policy]
policy_file = {etc}/no-policy.yaml
"""

PLACEMENT = """
[DEFAULT]
log_file = {folder}/placement.log
use_stderr = false
[api]
auth_strategy = noauth2
[placement_database]
connection = sqlite:///{folder}/placement.db?timeout=60
sqlite_synchronous = false
[oslo_policy]
policy_file = {etc}/no-policy.yaml
"""

# executor_thread_pool_size: every RPC call or cast of conductor and compute takes one thread of it.
# service_down_time: a busy machine must not make the only host look dead.
# neutron, glance: their clients are replaced in the process (serve_nova.py); nothing listens there.
NOVA = """
[DEFAULT]
host = host1
my_ip = 127.0.0.1
transport_url = fake:/
log_file = {folder}/nova.log
use_stderr = false
compute_driver = slow_fake_driver.SlowFakeDriver
state_path = {folder}/state
instances_path = {folder}/state/instances
executor_thread_pool_size = 256
report_interval = 10
service_down_time = 3600
sync_power_state_interval = 600
max_concurrent_builds = 20
heal_instance_info_cache_interval = -1
[api]
max_limit = 1000
[api_database]
connection = sqlite:///{folder}/nova_api.db?timeout=60
max_pool_size = 200
sqlite_synchronous = false
[database]
connection = sqlite:///{folder}/nova_cell1.db?timeout=60
max_pool_size = 200
sqlite_synchronous = false
[wsgi]
api_paste_config = {etc}/api-paste.ini
[quota]
driver = nova.quota.NoopQuotaDriver
[placement]
auth_type = admin_token
token = admin
endpoint = http://127.0.0.1:{placement}
endpoint_override = http://127.0.0.1:{placement}
[glance]
api_servers = http://127.0.0.1:1
[neutron]
auth_type = admin_token
token = admin
endpoint = http://127.0.0.1:1
endpoint_override = http://127.0.0.1:1
[oslo_messaging_notifications]
driver = noop
[oslo_concurrency]
lock_path = {folder}/state/lock
[oslo_policy]
policy_file = {etc}/no-policy.yaml
[key_manager]
backend = nova.keymgr.conf_key_mgr.ConfKeyManager
[cache]
enabled = false
[keystone_authtoken]
auth_type = password
auth_url = http://127.0.0.1:{keystone}/v3
www_authenticate_uri = http://127.0.0.1:{keystone}/v3
username = nova
password = {password}
project_name = service
user_domain_id = default
project_domain_id = default
service_token_roles_required = true
service_token_roles = service
service_type = compute
"""


def write(folder: Path, *, venv: Path, ports: dict[str, int], token_seconds: int, brief_token_seconds: int) -> Path:
    """Write what the services read, a file for each and named after it, and give the folder that it is in.

    The two Keystones share the database and the keys, so a token of one is a token of the other. A token carries its
    own expiry: Nova, which asks the first about each, honours one of the second for as long as the second says.

    Args:
        folder: Of the run: databases, logs and state go there.
        venv: The installation; Nova's own pipeline of middleware (api-paste.ini) is used as it comes.
        ports: Of the services by name.
        token_seconds: Life of a token of Keystone.
        brief_token_seconds: Life of a token of the second, brief Keystone.
    """
    etc = folder / "etc"
    fernet = folder / "fernet"
    for directory in (etc, fernet, folder / "state" / "instances", folder / "state" / "lock"):
        directory.mkdir(parents=True)
    values = {
        "folder": folder,
        "etc": etc,
        "keystone": ports["keystone"],
        "placement": ports["placement"],
        "password": PASSWORD,
    }
    for name, text, seconds in (
        ("keystone", KEYSTONE, token_seconds),
        ("brief_keystone", KEYSTONE, brief_token_seconds),
        ("placement", PLACEMENT, None),
        ("nova", NOVA, None),
    ):
        text = text.format(name=name, own_port=ports[name], token_seconds=seconds, **values)
        (etc / f"{name}.conf").write_text(text)
    (etc / "no-policy.yaml").write_text("{}\n")
    for number in ("0", "1"):  # the staged and the primary key, which `keystone-manage fernet_setup` would make as root
        (fernet / number).write_bytes(base64.urlsafe_b64encode(os.urandom(32)))
        (fernet / number).chmod(0o600)
    shutil.copy(venv / "etc" / "nova" / "api-paste.ini", etc)
    return etc
