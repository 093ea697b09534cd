{{- define "cudalint.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "cudalint.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "cudalint.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "cudalint.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "cudalint.selector" -}}
app.kubernetes.io/name: {{ include "cudalint.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Without the chart's version and the tool that installs it: the plain manifest has the same labels. */}}
{{- define "cudalint.labels" -}}
{{ include "cudalint.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "cudalint.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "cudalint.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "cudalint.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "cudalint.tlsSecret" -}}
{{- ternary (printf "%s-tls" (include "cudalint.fullname" .)) .Values.certificate.existingSecret .Values.certificate.certManager.enabled }}
{{- end }}

{{- /* What cannot be rendered into something that works, all of it at once. */}}
{{- define "cudalint.check" -}}
{{- $wrong := list }}
{{- if not .Values.image.repository }}
{{- $wrong = append $wrong "image.repository is empty: name the image that packaging/container.sh built" }}
{{- end }}
{{- if and (empty .Values.allowRegistries) (not .Values.allowAnyRegistry) }}
{{- $wrong = append $wrong "allowRegistries is empty: list the registries that pods use, such as ghcr.io or registry.example.org/ml/**, or set allowAnyRegistry" }}
{{- end }}
{{- if and .Values.allowRegistries .Values.allowAnyRegistry }}
{{- $wrong = append $wrong "allowRegistries and allowAnyRegistry exclude each other" }}
{{- end }}
{{- if not (or .Values.hosts.kubernetes .Values.hosts.pools) }}
{{- $wrong = append $wrong "there are no hosts to judge for: set hosts.kubernetes, or declare hosts.pools" }}
{{- end }}
{{- with .Values.certificate }}
{{- if and (not .certManager.enabled) (not .existingSecret) }}
{{- $wrong = append $wrong "certificate.existingSecret is empty: name a Secret of the type kubernetes.io/tls, or set certificate.certManager.enabled" }}
{{- end }}
{{- if and $.Values.webhook.enabled (not .certManager.enabled) (not .caBundle) }}
{{- $wrong = append $wrong "certificate.caBundle is empty: give the PEM of the authority that signed the certificate" }}
{{- end }}
{{- if and .certManager.enabled .existingSecret }}
{{- $wrong = append $wrong "certificate.existingSecret is for clusters without cert-manager: set certificate.certManager.enabled to false" }}
{{- end }}
{{- end }}
{{- if $wrong }}
{{- fail (printf "\n\n  %s\n" (join "\n  " $wrong)) }}
{{- end }}
{{- end }}

{{- /* A CEL expression: whether the pod or pod template at `.` asks for a GPU. It holds wherever the server would look at the pod. */}}
{{- define "cudalint.asks" -}}
(
  ({{ . }}.spec.containers
    + (has({{ . }}.spec.initContainers) ? {{ . }}.spec.initContainers : [])
    + (has({{ . }}.spec.ephemeralContainers) ? {{ . }}.spec.ephemeralContainers : [])
  ).exists(c,
    (has(c.resources) && has(c.resources.limits) && c.resources.limits.exists(name,
      name.startsWith('nvidia.com/') || name.startsWith('deviceclass.resource.kubernetes.io/')))
    || (has(c.resources) && has(c.resources.claims) && size(c.resources.claims) > 0)
    || (has(c.env) && c.env.exists(e, e.name == 'NVIDIA_VISIBLE_DEVICES')))
  || (has({{ . }}.spec.runtimeClassName) && {{ . }}.spec.runtimeClassName.startsWith('nvidia'))
  || (has({{ . }}.metadata) && has({{ . }}.metadata.annotations)
    && {{ . }}.metadata.annotations.exists(key, key.startsWith('cdi.k8s.io/')))
)
{{- end }}
