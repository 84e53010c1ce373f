"""The project whose servers a run restarts: its compute endpoint, and the names that a person knows."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The project whose servers a run restarts.

    Two targets with the same endpoint, which ends in the project's id, have the same servers; the other names may
    differ. A target holds no secret: an endpoint has no user name and no query.

    Attributes:
        endpoint: The project's compute endpoint, without a slash at its end.
        project_id: The project's id.
        project_name: The project's name, from the token; "" if no sign-in has shown it.
        cloud: The cloud's name in clouds.yaml; "envvars" for a cloud that `OS_*` variables describe; "" if the endpoint
            was given.
        region: The region, from the catalog or else from the configuration; "" if neither names one.
    """

    endpoint: str
    project_id: str
    project_name: str = ""
    cloud: str = ""
    region: str = ""

    def __str__(self) -> str:
        """Return all that is known of it in one line."""
        kinds = (("cloud", self.cloud), ("region", self.region), ("project", self.project_name and self.project))
        named = [f"{kind} {name}" for kind, name in kinds if name]
        return ", ".join([*named, f"endpoint {self.endpoint}"]) if named else self.endpoint

    @property
    def project(self) -> str:
        """The project's name and id, or its id alone."""
        return f"{self.project_name} ({self.project_id})" if self.project_name else self.project_id
