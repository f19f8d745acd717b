{{- /* The settings: of the overlays, then those of the values. JSON. */ -}}
{{- define "paygress.config" -}}
{{- $config := dict -}}
{{- $files := list "cluster/config.env" -}}
{{- if .Values.gateway.enabled -}}
{{- $files = append $files "gateway/gateway.env" -}}
{{- end -}}
{{- if .Values.gateway.process.enabled -}}
{{- $files = append $files "gateway-process/gateway.env" -}}
{{- end -}}
{{- range $file := $files -}}
{{- range $line := splitList "\n" ($.Files.Get (printf "manifests/%s" $file)) -}}
{{- if and (contains "=" $line) (not (hasPrefix "#" $line)) -}}
{{- $parts := splitn "=" 2 $line -}}
{{- $_ := set $config $parts._0 $parts._1 -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.policies.enabled -}}
{{- $_ := set $config "POLICY_NAMESPACE" .Release.Namespace -}}
{{- else -}}
{{- $_ := unset $config "POLICY_NAMESPACE" -}}
{{- end -}}
{{- if hasKey .Values.files "paygress.toml" -}}
{{- $_ := set $config "PAYGRESS_CONFIG" "/etc/paygress/paygress.toml" -}}
{{- end -}}
{{- range $name, $value := .Values.config -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $config $name -}}
{{- else -}}
{{- $_ := set $config $name (kindIs "string" $value | ternary $value (toJson $value)) -}}
{{- end -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{- /* The objects of one manifest (root, file), in the namespaces of this release. A JSON array. */ -}}
{{- define "paygress.objects" -}}
{{- $customers := (include "paygress.config" .root | fromJson).POD_NAMESPACE -}}
{{- $text := required (printf "manifests/%s is missing" .file) (.root.Files.Get (printf "manifests/%s" .file)) -}}
{{- $objects := list -}}
{{- range $document := splitList "\n---\n" $text -}}
{{- $document = $document | replace "ingress-system" $.root.Release.Namespace | replace "user-workloads" $customers -}}
{{- $objects = append $objects (fromYaml $document) -}}
{{- end -}}
{{- toJson $objects -}}
{{- end -}}

{{- /* How customers may reach pods. A JSON array. */ -}}
{{- define "paygress.access" -}}
{{- $access := list -}}
{{- range $way := splitList "," ((include "paygress.config" . | fromJson).ACCESS | default "host-port,node-port") -}}
{{- $access = append $access (trim $way) -}}
{{- end -}}
{{- toJson $access -}}
{{- end -}}

{{- /* Whether the settings have a gateway, or may have one in a file that is not of the chart. Else empty. */ -}}
{{- define "paygress.hasGateway" -}}
{{- $config := include "paygress.config" . | fromJson -}}
{{- $beside := list .Values.files .Values.extraEnv | toJson | upper -}}
{{- if $config.GATEWAY_SSH_LISTEN -}}
true
{{- else if has ($config.GATEWAY_IROH | default "false") (list "true" "yes" "1") -}}
true
{{- else if regexMatch "GATEWAY_(SSH_LISTEN|IROH)|PAYGRESS_CONFIG" $beside -}}
true
{{- else if and $config.PAYGRESS_CONFIG (not (hasKey .Values.files "paygress.toml")) -}}
true
{{- end -}}
{{- end -}}

{{- /* The Pod Security Standard of the customers' namespace: the strictest that takes the pods. */ -}}
{{- define "paygress.podSecurity" -}}
{{- $config := include "paygress.config" . | fromJson -}}
{{- if has "host-port" (include "paygress.access" . | fromJsonArray) -}}
privileged
{{- else if and (eq ($config.POD_ROOT | default "auto") "never") (eq ($config.SSH_SERVER_VOLUME | default "auto") "copy") -}}
restricted
{{- else -}}
baseline
{{- end -}}
{{- end -}}

{{- /* What uninstalling the release leaves: what holds money, what was sold, and the walls around that. */ -}}
{{- define "paygress.keep" -}}
{{- $metadata := .metadata -}}
{{- $_ := set $metadata "annotations" (merge (dict "helm.sh/resource-policy" "keep") ($metadata.annotations | default dict)) -}}
{{- end -}}

{{- /* An object (root, object) as it is in the release: with the labels of all. YAML. */ -}}
{{- define "paygress.object" -}}
{{- $labels := merge (.object.metadata.labels | default dict) .root.Values.commonLabels -}}
{{- if $labels -}}
{{- $_ := set .object.metadata "labels" $labels -}}
{{- end -}}
{{- toYaml .object -}}
{{- end -}}

{{- /* Closes the networks of `network.except` in the egress rule (root, rule) to the internet of IPv4 and IPv6. */ -}}
{{- define "paygress.except" -}}
{{- $peers := .rule.to -}}
{{- range $network := .root.Values.network.except -}}
{{- $block := (index $peers (contains ":" $network | ternary 1 0)).ipBlock -}}
{{- $_ := set $block "except" (append ($block.except | default list) $network) -}}
{{- end -}}
{{- end -}}

{{- /* Takes the right to forward to pods from the Role (root, role), unless the values grant it. */ -}}
{{- define "paygress.portForward" -}}
{{- $rules := list -}}
{{- range $rule := .role.rules -}}
{{- if not (has "pods/portforward" $rule.resources) -}}
{{- $rules = append $rules $rule -}}
{{- end -}}
{{- end -}}
{{- if not .root.Values.gateway.portForward -}}
{{- $_ := set .role "rules" $rules -}}
{{- end -}}
{{- end -}}

{{- /* What the values want of each Deployment (root, deployment, image, resources, pod). */ -}}
{{- define "paygress.deployment" -}}
{{- $values := .root.Values -}}
{{- $template := .deployment.spec.template -}}
{{- $pod := $template.spec -}}
{{- $container := first $pod.containers -}}
{{- /* The pod reads its settings when it starts. */ -}}
{{- $settings := toJson (list (include "paygress.config" .root | fromJson) $values.files) | sha256sum -}}
{{- $_ := set $template.metadata "annotations" (merge (dict "checksum/config" $settings) $values.podAnnotations) -}}
{{- $_ := set $template.metadata "labels" (merge $template.metadata.labels $values.podLabels) -}}
{{- $_ := set $container "image" .image -}}
{{- $sources := list (first $container.envFrom) -}}
{{- range $secret := $values.secrets -}}
{{- $sources = append $sources (dict "secretRef" (dict "name" $secret)) -}}
{{- end -}}
{{- if $values.postgres.enabled -}}
{{- $sources = append $sources (dict "secretRef" (dict "name" $values.postgres.secret)) -}}
{{- end -}}
{{- $_ := set $container "envFrom" $sources -}}
{{- if $values.extraEnv -}}
{{- $_ := set $container "env" (concat ($container.env | default list) $values.extraEnv) -}}
{{- end -}}
{{- if .resources -}}
{{- $_ := set $container "resources" .resources -}}
{{- end -}}
{{- include "paygress.pullSecrets" (dict "root" .root "pod" $pod) -}}
{{- $_ := mergeOverwrite $pod (deepCopy .pod) -}}
{{- end -}}

{{- /* Gives a pod's spec (root, pod) the Secrets with which images are pulled. */ -}}
{{- define "paygress.pullSecrets" -}}
{{- $secrets := list -}}
{{- range $secret := .root.Values.imagePullSecrets -}}
{{- $secrets = append $secrets (dict "name" $secret) -}}
{{- end -}}
{{- if $secrets -}}
{{- $_ := set .pod "imagePullSecrets" $secrets -}}
{{- end -}}
{{- end -}}
