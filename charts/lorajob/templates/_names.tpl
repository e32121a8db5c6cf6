{{/* Labels of everything that the chart makes. */}}
{{- define "lorajob.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: lorajob
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Name of what belongs to the whole cluster: there is one platform a namespace. */}}
{{- define "lorajob.clusterName" -}}
lorajob-runner.{{ .Release.Namespace }}
{{- end }}
{{- define "lorajob.usersPolicy" -}}
lorajob-users.{{ .Release.Namespace }}
{{- end }}
{{- define "lorajob.configPolicy" -}}
lorajob-platform.{{ .Release.Namespace }}
{{- end }}
