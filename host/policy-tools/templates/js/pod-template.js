// A pod-template policy: one container that serves SSH on a port of its node, without any privilege.
import { Settings, integer } from "./settings.js";

const declared = new Settings("A pod with SSH", {
  user_id: integer(1, 2_147_483_647, { default: 1_000, description: "The user and group that the pod runs as." }),
});

// Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
let kept;

// A `result` of the contract is returned when it is good and thrown when it is not.
export const settings = {
  schema: () => declared.schema(),
  configure(json) {
    kept = declared.read(json);
  },
};

export const podTemplate = {
  render(order, grant, placement, access, tier) {
    const hostPort = access.includes("host-port") ? { hostPort: placement.hostPort } : {};
    const { cpuMillicores, memoryMib } = placement.resources;
    const resources = { cpu: `${cpuMillicores}m`, memory: `${memoryMib}Mi` };
    const template = {
      spec: {
        restartPolicy: "Never",
        automountServiceAccountToken: false,
        enableServiceLinks: false,
        terminationGracePeriodSeconds: 2,
        securityContext: {
          runAsNonRoot: true,
          runAsUser: kept.user_id,
          runAsGroup: kept.user_id,
          fsGroup: kept.user_id,
          seccompProfile: { type: "RuntimeDefault" },
        },
        containers: [
          {
            name: "ssh",
            image: placement.image,
            imagePullPolicy: "IfNotPresent",
            ports: [{ name: "ssh", containerPort: placement.containerPort, ...hostPort, protocol: "TCP" }],
            resources: { requests: resources, limits: resources },
            securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
            readinessProbe: { tcpSocket: { port: placement.containerPort }, periodSeconds: 1, failureThreshold: 600 },
            volumeMounts: [{ name: "login", mountPath: placement.secretMountPath, readOnly: true }],
          },
        ],
        volumes: [{ name: "login", secret: { secretName: placement.secretName, defaultMode: 0o440 } }],
      },
    };
    return { objects: { podTemplateJson: JSON.stringify(template), servicesJson: [] } };
  },
};
