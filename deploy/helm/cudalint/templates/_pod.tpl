{{- /* Arguments of `cudalint serve`. Secrets come as files or in the environment. */}}
{{- define "cudalint.args" -}}
{{- $v := .Values }}
{{- $etc := "/etc/cudalint" }}
{{- $args := list "serve" "--listen=0.0.0.0:8443" (printf "--tls-cert=%s/tls/tls.crt" $etc) (printf "--tls-key=%s/tls/tls.key" $etc) }}
{{- $args = append $args (printf "--mode=%s" $v.mode) }}
{{- range $v.namespaceModes }}
{{- $args = append $args (printf "--namespace-mode=%s=%s" .namespaces .mode) }}
{{- end }}
{{- $args = append $args (printf "--unknown=%s" $v.unknown) }}
{{- with $v.cold }}{{ $args = append $args (printf "--cold=%s" .) }}{{ end }}
{{- with $v.failed }}{{ $args = append $args (printf "--failed=%s" .) }}{{ end }}
{{- range $v.allowRegistries }}
{{- $args = append $args (printf "--allow-registry=%s" .) }}
{{- end }}
{{- if $v.allowAnyRegistry }}{{ $args = append $args "--allow-any-registry" }}{{ end }}
{{- if $v.registryCredentials.existingSecret }}{{ $args = append $args (printf "--authfile=%s/registry/config.json" $etc) }}{{ end }}
{{- if $v.registryCA.existingConfigMap }}{{ $args = append $args (printf "--ca-file=%s/registry-ca/ca.crt" $etc) }}{{ end }}
{{- if $v.hosts.kubernetes }}{{ $args = append $args "--nodes=kubernetes" }}{{ end }}
{{- if $v.hosts.pools }}{{ $args = append $args (printf "--targets=%s/pools/pools.toml" $etc) }}{{ end }}
{{- with $v.hosts.containerToolkit }}{{ $args = append $args (printf "--container-toolkit=%s" .) }}{{ end }}
{{- with $v.hosts.runtimeMode }}{{ $args = append $args (printf "--runtime-mode=%s" .) }}{{ end }}
{{- if $v.clients.existingSecret }}{{ $args = append $args (printf "--clients=%s/clients/clients.toml" $etc) }}{{ end }}
{{- with $v.scan }}
{{- $args = concat $args (list (printf "--wait=%s" .wait) (printf "--queue=%d" (int .queue)) (printf "--scans=%d" (int .scans))) }}
{{- $args = concat $args (list (printf "--tag-age=%s" .tagAge) (printf "--timeout=%s" .timeout)) }}
{{- if .attach }}{{ $args = append $args "--attach" }}{{ end }}
{{- end }}
{{- $args = concat $args (list "--state-dir=/var/lib/cudalint/state" "--cache-dir=/var/lib/cudalint/cache") }}
{{- $args = append $args (printf "--cache-max-size=%s" $v.cache.maxSize) }}
{{- with $v.sharedCache }}
{{- if .url }}
{{- $args = append $args (printf "--shared-cache=%s" .url) }}
{{- if .readOnly }}{{ $args = append $args "--shared-cache-read-only" }}{{ end }}
{{- if .keySecret }}{{ $args = append $args (printf "--cache-key=%s/cache-key/key" $etc) }}{{ end }}
{{- end }}
{{- end }}
{{- $args = concat $args (list (printf "--drain=%ds" (int $v.drainSeconds)) (printf "--log-level=%s" $v.log.level)) }}
{{- toYaml (concat $args $v.extraArgs) }}
{{- end }}

{{- /* The pod of the Deployment and of the StatefulSet. */}}
{{- define "cudalint.pod" -}}
{{- $v := .Values }}
metadata:
  labels:
    {{- include "cudalint.labels" . | nindent 4 }}
    {{- with $v.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $v.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "cudalint.serviceAccount" . }}
  automountServiceAccountToken: {{ $v.hosts.kubernetes }}
  # A Service of the name cudalint would set variables that begin with CUDALINT_, as options do.
  enableServiceLinks: false
  # Draining, then 20 s for answers that are being made.
  terminationGracePeriodSeconds: {{ add $v.drainSeconds 25 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- with $v.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $v.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- if $v.topologySpreadConstraints }}
    {{- toYaml $v.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "cudalint.selector" . | nindent 10 }}
    {{- end }}
  containers:
    - name: cudalint
      image: {{ include "cudalint.image" . | quote }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      args:
        {{- include "cudalint.args" . | nindent 8 }}
      {{- with $v.extraEnv }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.sharedCache.credentialsSecret }}
      envFrom:
        - secretRef:
            name: {{ . }}
      {{- end }}
      ports:
        - name: https
          containerPort: 8443
          protocol: TCP
      livenessProbe:
        httpGet:
          path: /healthz
          port: https
          scheme: HTTPS
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet:
          path: /readyz
          port: https
          scheme: HTTPS
        periodSeconds: 3
        timeoutSeconds: 3
        failureThreshold: 2
      resources:
        {{- toYaml $v.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      volumeMounts:
        - name: data
          mountPath: /var/lib/cudalint
        - name: temporary
          mountPath: /tmp
        - name: tls
          mountPath: /etc/cudalint/tls
          readOnly: true
        {{- if $v.hosts.pools }}
        - name: pools
          mountPath: /etc/cudalint/pools
          readOnly: true
        {{- end }}
        {{- if $v.clients.existingSecret }}
        - name: clients
          mountPath: /etc/cudalint/clients
          readOnly: true
        {{- end }}
        {{- if $v.registryCredentials.existingSecret }}
        - name: registry
          mountPath: /etc/cudalint/registry
          readOnly: true
        {{- end }}
        {{- if $v.registryCA.existingConfigMap }}
        - name: registry-ca
          mountPath: /etc/cudalint/registry-ca
          readOnly: true
        {{- end }}
        {{- if and $v.sharedCache.url $v.sharedCache.keySecret }}
        - name: cache-key
          mountPath: /etc/cudalint/cache-key
          readOnly: true
        {{- end }}
  volumes:
    {{- if not $v.persistence.enabled }}
    - name: data
      emptyDir:
        sizeLimit: {{ $v.persistence.size }}
    {{- end }}
    - name: temporary
      emptyDir:
        sizeLimit: {{ $v.temporarySize }}
    - name: tls
      secret:
        secretName: {{ include "cudalint.tlsSecret" . }}
        defaultMode: 0440
    {{- if $v.hosts.pools }}
    - name: pools
      configMap:
        name: {{ include "cudalint.fullname" . }}-pools
    {{- end }}
    {{- with $v.clients }}
    {{- if .existingSecret }}
    - name: clients
      secret:
        secretName: {{ .existingSecret }}
        defaultMode: 0440
        items:
          - key: {{ .key }}
            path: clients.toml
    {{- end }}
    {{- end }}
    {{- with $v.registryCredentials.existingSecret }}
    - name: registry
      secret:
        secretName: {{ . }}
        defaultMode: 0440
        items:
          - key: .dockerconfigjson
            path: config.json
    {{- end }}
    {{- with $v.registryCA }}
    {{- if .existingConfigMap }}
    - name: registry-ca
      configMap:
        name: {{ .existingConfigMap }}
        items:
          - key: {{ .key }}
            path: ca.crt
    {{- end }}
    {{- end }}
    {{- with $v.sharedCache }}
    {{- if and .url .keySecret }}
    - name: cache-key
      secret:
        secretName: {{ .keySecret }}
        defaultMode: 0440
        items:
          - key: {{ .keySecretKey }}
            path: key
    {{- end }}
    {{- end }}
{{- end }}
