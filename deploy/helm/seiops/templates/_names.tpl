{{/* The names are fixed: dashboards, policies and the Lease refer to them, and there is one controller in a cluster. */}}
{{- define "seiops.labels" -}}
app.kubernetes.io/name: sei-k8s-controller
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "seiops.selector" -}}
app.kubernetes.io/name: sei-k8s-controller
control-plane: controller-manager
{{- end }}

{{- define "seiops.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Rules of a role as kustomize has them: one source for both. */}}
{{- define "seiops.rules" -}}
{{ (.context.Files.Get (printf "files/%s.yaml" .role) | fromYaml).rules | toYaml }}
{{- end }}
