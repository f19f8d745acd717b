// Package policy is a pod-template policy: one container that serves SSH on a port of its node, without any privilege.
package policy

import (
	"encoding/json"
	"fmt"
	"slices"

	"wit_component/paygress_policy_pod_template"
	"wit_component/paygress_policy_types"
	"wit_component/settings"

	"go.bytecodealliance.org/pkg/wit/types"
)

type (
	access    = paygress_policy_pod_template.AccessMode
	egress    = paygress_policy_pod_template.EgressRule
	grant     = paygress_policy_types.Grant
	order     = paygress_policy_types.Order
	placement = paygress_policy_types.Placement
	refusal   = paygress_policy_types.Refusal
	objects   = paygress_policy_types.Rendered
	rendered  = paygress_policy_pod_template.RenderedPod
	problem   = paygress_policy_types.Problem
)

// Set by Configure, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
var userID uint64

var declared = settings.Settings{
	Title: "A pod with SSH",
	Fields: []settings.Field{
		settings.Integer(&userID, "user_id", 1_000, 1, 2_147_483_647, "The user and group that the pod runs as."),
	},
}

// Schema is a JSON Schema of the settings.
func Schema() string { return declared.Schema() }

// Configure takes the settings.
func Configure(json string) wit_types.Result[wit_types.Unit, []problem] {
	if problems := settings.Read[problem](declared, json); len(problems) > 0 {
		return wit_types.Err[wit_types.Unit](problems)
	}
	return wit_types.Ok[wit_types.Unit, []problem](wit_types.Unit{})
}

type object = map[string]any

// Render is the pod for an order.
func Render(_ order, _ grant, placement placement, modes []access, _ string) wit_types.Result[rendered, refusal] {
	port := object{"name": "ssh", "containerPort": placement.ContainerPort, "protocol": "TCP"}
	if slices.Contains(modes, paygress_policy_pod_template.AccessModeHostPort) {
		port["hostPort"] = placement.HostPort
	}
	resources := object{
		"cpu":    fmt.Sprintf("%dm", placement.Resources.CpuMillicores),
		"memory": fmt.Sprintf("%dMi", placement.Resources.MemoryMib),
	}
	template := object{"spec": object{
		"restartPolicy":                 "Never",
		"automountServiceAccountToken":  false,
		"enableServiceLinks":            false,
		"terminationGracePeriodSeconds": 2,
		"securityContext": object{
			"runAsNonRoot":   true,
			"runAsUser":      userID,
			"runAsGroup":     userID,
			"fsGroup":        userID,
			"seccompProfile": object{"type": "RuntimeDefault"},
		},
		"containers": []object{{
			"name":            "ssh",
			"image":           placement.Image,
			"imagePullPolicy": "IfNotPresent",
			"ports":           []object{port},
			"resources":       object{"requests": resources, "limits": resources},
			"securityContext": object{"allowPrivilegeEscalation": false, "capabilities": object{"drop": []string{"ALL"}}},
			"readinessProbe": object{
				"tcpSocket": object{"port": placement.ContainerPort}, "periodSeconds": 1, "failureThreshold": 600,
			},
			"volumeMounts": []object{{"name": "login", "mountPath": placement.SecretMountPath, "readOnly": true}},
		}},
		"volumes": []object{{"name": "login", "secret": object{"secretName": placement.SecretName, "defaultMode": 0o440}}},
	}}
	text, failed := json.Marshal(template)
	if failed != nil {
		return wit_types.Err[rendered](refusal{"resource_unavailable", "the pod template is no JSON"})
	}
	return wit_types.Ok[rendered, refusal](rendered{objects{string(text), []string{}}, wit_types.None[[]egress]()})
}
