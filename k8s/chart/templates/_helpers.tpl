{{- /* The settings: of the overlays, then those of the values. JSON. */ -}}
{{- define "paygress.config" -}}
{{- $config := dict -}}
{{- $files := list "cluster/config.env" -}}
{{- if .Values.gateway.enabled -}}
{{- $files = append $files "gateway/gateway.env" -}}
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

{{- /* What uninstalling the release leaves: what holds money, and what was sold. */ -}}
{{- define "paygress.keep" -}}
{{- $metadata := .metadata -}}
{{- $_ := set $metadata "annotations" (merge (dict "helm.sh/resource-policy" "keep") ($metadata.annotations | default dict)) -}}
{{- end -}}
