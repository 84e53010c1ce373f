"""Options that more than one command has."""

from typing import Annotated

import typer

from bulkrestart.cli.show import Output

EndpointOption = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        help="The project's compute endpoint: https://HOST/v2.1/PROJECT_ID. Requests are signed with "
        "OS_TOKEN, or with HUAWEICLOUD_SDK_AK, _SK and, for temporary keys, _SECURITY_TOKEN.",
    ),
]
CloudOption = Annotated[
    str | None,
    typer.Option(
        "--cloud",
        metavar="NAME",
        help="A cloud in clouds.yaml, in place of --endpoint. Without either it is OS_CLOUD, or the cloud that the "
        "OS_* variables describe. OS_* variables override the file, as they do for `openstack` in the same shell.",
    ),
]
RegionOption = Annotated[
    str | None,
    typer.Option(
        "--region",
        metavar="NAME",
        help="The region, in place of OS_REGION_NAME. It is needed if the cloud has several.",
    ),
]
InterfaceOption = Annotated[
    str | None,
    typer.Option(
        "--interface",
        metavar="NAME",
        help="The interface of the compute endpoint: public, internal or admin, in place of OS_INTERFACE.",
    ),
]
ProjectOption = Annotated[
    str | None,
    typer.Option(
        "--project",
        metavar="NAME_OR_ID",
        help="The project, in place of OS_PROJECT_NAME and OS_PROJECT_ID. 32 hexadecimal digits are an id, anything "
        "else is a name.",
    ),
]
CacertOption = Annotated[
    str, typer.Option("--cacert", metavar="FILE", help="Certificates to trust, in place of the system's.")
]
CertOption = Annotated[
    str, typer.Option("--cert", metavar="FILE", help="Your own certificate, where the cloud asks for one.")
]
KeyOption = Annotated[str, typer.Option("--key", metavar="FILE", help="The key of --cert, unless that file holds it.")]
InsecureOption = Annotated[bool, typer.Option("--insecure", help="Do not verify certificates.")]

AllOption = Annotated[bool, typer.Option("--all", help="Select every server of the project.")]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="REGEX", help="Select servers in whose name it is found.")
]
StatusOption = Annotated[
    list[str] | None,
    typer.Option("--status", metavar="STATUS", help="Select by status, such as SHUTOFF; repeated: any of them."),
]
TagOption = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Select by tag; repeated: all of them.")
]
AzOption = Annotated[
    list[str] | None,
    typer.Option("--az", metavar="ZONE", help="Select by availability zone; repeated: any of them."),
]
MetadataOption = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="KEY=VALUE", help="Select by metadata; repeated: all of them."),
]

OutputOption = Annotated[
    Output,
    typer.Option(
        "--output",
        metavar="table|json|jsonl",
        help="table: a line for each server, as it comes. jsonl: an object for each instead. json: all at the end.",
    ),
]
