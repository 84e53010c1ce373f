"""A request, taken apart."""

from dataclasses import dataclass

from starlette.datastructures import QueryParams
from starlette.requests import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asks for; a part that its path does not have is "".

    Attributes:
        token: From its header.
        authorization: The header of that name, which a signed request has in place of a token.
        signed_at: When the request was signed, as it says.
        api: The first part of the path: "v2.1" or "v2".
        project_id: The project in the path: Nova serves paths without one too.
        server_id: The server in the path.
        row_id: The row of the action log in the path: the id of the request that it tells of.
        query: The query.
        body: The bytes of the body.
        accept: The forms of answer that the client takes.
        microversion: The one that is asked for, as written; "" for none.
        request_id: The id that this request was given.
        number: Its number in `Cloud.requests`; a second delivery of it has another id, and the same number.
        origin: Scheme and host of the URL.
        path: The path, whatever it leads to.
    """

    token: str
    authorization: str
    signed_at: str
    api: str
    project_id: str
    server_id: str
    row_id: str
    query: QueryParams
    body: bytes
    accept: str
    microversion: str
    request_id: str
    number: int
    origin: str
    path: str

    @property
    def base(self) -> str:
        """The URL of the API up to the project."""
        return f"{self.origin}/{self.api}{self._project_path}"

    @property
    def root(self) -> str:
        """The same without the version, where Nova's bookmarks point."""
        return f"{self.origin}{self._project_path}"

    @property
    def _project_path(self) -> str:
        return f"/{self.project_id}" if self.project_id else ""


def take_apart(request: Request, body: bytes, request_id: str, number: int) -> Asked:
    """Read what a request asks for, from the parts of its path that its route has named."""
    headers, parts, path = request.headers, request.path_params, request.scope["path"]
    return Asked(
        token=headers.get("x-auth-token", ""),
        authorization=headers.get("authorization", ""),
        signed_at=headers.get("x-sdk-date", ""),
        api=parts.get("api", path.strip("/").partition("/")[0]),
        project_id=parts.get("project_id", ""),
        server_id=parts.get("server_id", ""),
        row_id=parts.get("row_id", ""),
        query=request.query_params,
        body=body,
        accept=headers.get("accept", ""),
        microversion=_microversion(
            headers.get("openstack-api-version", ""), headers.get("x-openstack-nova-api-version", "")
        ),
        request_id=request_id,
        number=number,
        origin=f"{request.scope['scheme']}://{headers.get('host', '')}",
        path=path,
    )


def _microversion(of_all_services: str, of_nova: str) -> str:
    """Read "compute 2.60" or "2.60"; the first counts if it names compute (microversion_parse)."""
    for one in of_all_services.split(","):
        service, _, version = one.strip().partition(" ")
        if service.lower() == "compute":
            return version.strip()
    return of_nova.strip()
