"""What a run is aimed at: the project's compute endpoint, and the names by which a person knows it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the servers of a run are.

    The endpoint, which ends in the project's id, is its identity: two targets with the same endpoint are the same
    servers, whatever names led there. It holds no secret: an endpoint has no user name and no query.

    Attributes:
        endpoint: The project's compute endpoint, without a slash at its end.
        project_id: The project.
        project_name: The project's name, from the token; "" where no sign-in has told it.
        cloud: The cloud's name in clouds.yaml, "envvars" for one that `OS_*` variables describe; "" for an endpoint
            that was given.
        region: The region, from the catalog or else from the configuration; "" where neither names one.
    """

    endpoint: str
    project_id: str
    project_name: str = ""
    cloud: str = ""
    region: str = ""

    def __str__(self) -> str:
        """Name it in one line: by its endpoint alone where nothing else is known of it."""
        kinds = (("cloud", self.cloud), ("region", self.region), ("project", self.project_name and self.project))
        named = [f"{kind} {name}" for kind, name in kinds if name]
        return ", ".join([*named, f"endpoint {self.endpoint}"]) if named else self.endpoint

    @property
    def project(self) -> str:
        """The project's name and id, or its id alone."""
        return f"{self.project_name} ({self.project_id})" if self.project_name else self.project_id
