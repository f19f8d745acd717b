"""A pod-template policy: one container that serves SSH on a port of its node, without any privilege.

The classes `Settings` and `PodTemplate` are the interfaces that the component exports.
"""

import json

from wit_world import exports
from wit_world.exports.pod_template import AccessMode, RenderedPod
from wit_world.imports.types import Grant, Order, Placement, Rendered

from settings import Declared, integer, read, schema


class Kept(Declared, title="A pod with SSH"):
    user_id: int = integer(1, 2_147_483_647, default=1_000, description="The user and group that the pod runs as.")


# Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
kept = Kept()


class Settings(exports.Settings):
    def schema(self) -> str:
        return schema(Kept)

    def configure(self, json: str) -> None:
        global kept
        kept = read(Kept, json)


class PodTemplate(exports.PodTemplate):
    def render(
        self, order: Order, grant: Grant, placement: Placement, access: list[AccessMode], tier: str
    ) -> RenderedPod:
        port = placement.container_port
        host_port = {"hostPort": placement.host_port} if AccessMode.HOST_PORT in access else {}
        resources = {"cpu": f"{placement.resources.cpu_millicores}m", "memory": f"{placement.resources.memory_mib}Mi"}
        template = {
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": 2,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": kept.user_id,
                    "runAsGroup": kept.user_id,
                    "fsGroup": kept.user_id,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "ssh",
                        "image": placement.image,
                        "imagePullPolicy": "IfNotPresent",
                        "ports": [{"name": "ssh", "containerPort": port, **host_port, "protocol": "TCP"}],
                        "resources": {"requests": resources, "limits": resources},
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 600},
                        "volumeMounts": [{"name": "login", "mountPath": placement.secret_mount_path, "readOnly": True}],
                    }
                ],
                "volumes": [{"name": "login", "secret": {"secretName": placement.secret_name, "defaultMode": 0o440}}],
            }
        }
        return RenderedPod(objects=Rendered(json.dumps(template), []), egress=None)
