"""The files in a process's state folder, by name: everything that survives a restart.

`docs/reference/files.md` has its table from here.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CenterState", "NodeState", "ProcessState"]


class ProcessState:
    """Files of any process, a control centre or a node."""

    KEY: Final = "key"
    """Its private key, readable by its owner only."""
    LOCK: Final = "lock"
    """Locked by the process that uses the folder."""
    RESTORING: Final = "restoring"
    """Exists while a backup is being restored: no process starts with the folder until that has
    ended."""
    ROSTER: Final = "roster.json"
    """The newest roster that it has seen; it accepts no older one."""
    TLS: Final = "tls"
    """Its certificates, and the certificate of the authority that signed them."""
    RUNNING: Final = "running.json"
    """Its process id and the settings that it runs with, for `daitn doctor` to compare with the
    file."""
    TARGETS: Final = "metrics.json"
    """Addresses of its metrics, for Prometheus' `file_sd_configs`; deleted when it stops."""
    MODELS: Final = "models"
    """Chunks and manifests of models, by digest: at a node, those that arrived or were made there;
    at the control centre, those supplied by owners."""
    RELEASES: Final = "releases"
    """The owner of each model, and the sites to which it may travel."""


class NodeState:
    """Files of a node."""

    AUDIT: Final = "audit"
    """The audit log: who visited, what was refused, what left. A file has at most 16 MiB; beyond 64
    files, the oldest is deleted."""
    CORDON: Final = "cordon"
    """Exists while the node is out of service, until `daitn uncordon`: by whom and why."""
    STARTED: Final = "started"
    """The time, updated each minute, so that messages after a restart have later times than all
    earlier ones."""
    KNOWN_KEYS: Final = "known-keys"
    """Public keys of the nodes that it met; the roster says who is a member."""
    WORK: Final = "work"
    """Accepted work, and reports not yet acknowledged."""
    VISITS: Final = "visits"
    """Visits in progress, as of their latest savepoint (`save_every_s`)."""
    SCRATCH: Final = "scratch"
    """Files of work in progress; emptied at each start."""
    ORDERS: Final = "orders"
    """The amount of work done under each owner's signed order, so that no order is used twice."""
    FEEDBACK: Final = "feedback"
    """What compression left out of updates; it is added to the next update from the same data."""
    PRIVACY: Final = "privacy"
    """For each data set, how much visits with differential privacy may have revealed about a
    record. Restoring an older copy allows the same budget to be spent twice."""
    SUMS: Final = "sums"
    """Results of visits in rounds with secure aggregation, until they are summed, for a day at
    most."""
    DEPLOYMENTS: Final = "deployments"
    """For a facility: models that it was asked to host."""
    SERVING: Final = "serving"
    """For a facility: weights in use, unpacked; recreated at each start."""
    OWN_MODELS: Final = "own-models"
    """For a facility: logs of the servers that it runs for `facility.models`."""
    RESPONSES: Final = "responses"
    """For a facility: conversations that it stores for their owners."""
    SEALING_KEY: Final = "sealing-key"
    """For a facility: the key that opens payloads sealed to it, readable by its owner only."""
    USAGE_GATEWAY: Final = "usage-gateway"
    """For a gateway: answers counted but not yet reported."""
    USAGE_FACILITY: Final = "usage-facility"
    """For a facility: answers and hosting counted but not yet reported."""
    EXAMINATIONS: Final = "examinations"
    """For a verifier: its results on deployed models."""
    AGENTS: Final = "agents"
    """For a forwarder: travelling models that are here now, as the facts of their jobs."""
    AGENTS_OF_HOME: Final = "agents-of-home"
    """For a forwarder: models whose home it is, as last reported."""
    AGENTS_REPORTED: Final = "agents-reported"
    """For a forwarder: how much of their usage the control centre has in its ledger."""
    MODELS_LEFT: Final = "models-left"
    """For a forwarder: models that jobs with `gossip` left here for each other: the last one of
    each job, for a day at most."""


class CenterState:
    """Files of a control centre."""

    DATABASE: Final = "jobs.db"
    """Every job's events, the sites' known keys, the latest digest of each site's audit log, the
    list of models, deployments, the ledger; unless `database` names another database."""
    API_KEY: Final = "api-key"
    """The key that authenticates cookies of the dashboard, readable by its owner only."""
    API_ADDRESS: Final = "api-address"
    """Last address of the dashboard, so that open pages continue after a restart."""
    NETWORK: Final = "network"
    """For `daitn up`: the folder of the network that it created."""
    LOGS: Final = "logs"
    """For `daitn up`: logs of its processes."""
    ALL_TARGETS: Final = "metrics-of-network.json"
    """For `daitn up`: addresses of the metrics of all its processes, for Prometheus."""
