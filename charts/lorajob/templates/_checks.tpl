{{/*
What the values may be where a schema could only show a regular expression, in the words in which `lorajob` refuses them
too (cli/lorajob/platform/platform_rules.py): a value that passes here is one that a submit can use. Fails with a line for each
that is wrong.
*/}}
{{- define "lorajob.checks" -}}
{{- $p := .Values.platform -}}
{{- $defaults := $p.defaults -}}
{{- $state := dict "wrong" list -}}
{{- $label := "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?" -}}
{{- $subdomain := printf "%s([.]%s)*" $label $label -}}
{{- $word := "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?" -}}
{{- $host := "[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]+)?" -}}
{{- $image := printf "^(%s/)?[a-z0-9][a-z0-9._-]*(/[a-z0-9._-]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$" $host -}}
{{- $name := printf "^%s$" $subdomain -}}
{{- $key := printf "^(%s/)?%s$" $subdomain $word -}}
{{- $value := printf "^(%s)?$" $word -}}
{{- $address := "^https?://[^\\s/]+(/\\S*)?$" -}}
{{- $duration := "^[1-9][0-9]*[smhd]$" -}}
{{- $bucket := "^s3://[^/]*[^/\\s][^/]*(/.*)?$" -}}
{{- $object := "the name of a Kubernetes object: lower-case letters, digits, - and ." -}}
{{- $labels := "labels of nodes, like {nvidia.com/gpu.product: NVIDIA-H200}" -}}
{{- $rules := list
  (list "platform.image" $p.image $image "an image like registry.example/lorajob:0.1.0")
  (list "platform.storage.uri" $p.storage.uri "^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$" "s3://BUCKET/PREFIX")
  (list "platform.storage.endpoint" $p.storage.endpoint $address "an address like https://host:port")
  (list "platform.storage.region" $p.storage.region "^[A-Za-z0-9-]+$" "a region like eu-central-1")
  (list "platform.hubEndpoints.modelscope" $p.hubEndpoints.modelscope $address "an address like https://host:port")
  (list "platform.hubEndpoints.hf" $p.hubEndpoints.hf $address "an address like https://host:port")
  (list "platform.swanlab.host" $p.swanlab.host $address "an address like https://host:port")
  (list "platform.serviceAccount" $p.serviceAccount $name $object)
  (list "platform.cache.claim" $p.cache.claim $name $object)
  (list "platform.secrets.storage" $p.secrets.storage $name $object)
  (list "platform.secrets.swanlab" $p.secrets.swanlab $name $object)
  (list "platform.secrets.hub" $p.secrets.hub $name $object)
  (list "platform.scheduling.gpuResource" $p.scheduling.gpuResource (printf "^%s/%s$" $subdomain $word) "the name of an extended resource, like nvidia.com/gpu")
  (list "platform.scheduling.topologyKey" $p.scheduling.topologyKey $key "the key of a label, like topology.kubernetes.io/zone")
  (list "platform.scheduling.runtimeClassName" $p.scheduling.runtimeClassName $name $object)
  (list "platform.limits.timeout" $p.limits.timeout $duration "a duration like 90m, 24h or 3d")
  (list "platform.keepFinished" $p.keepFinished $duration "a duration like 12h or 7d")
  (list "platform.defaults.data.rows" (dig "data" "rows" nil $defaults) "^-?[0-9]*:-?[0-9]*$" "a row range like 5:5000, :5 or -100:")
  (list "platform.defaults.data.evalRows" (dig "data" "evalRows" nil $defaults) "^-?[0-9]*:-?[0-9]*$" "a row range like :5 or -100:")
  (list "platform.defaults.data.maxDropped" (dig "data" "maxDropped" nil $defaults) "^((100([.]0+)?|[0-9]{1,2}([.][0-9]+)?)%|error)$" "a share from 0% to 100%, or error")
  (list "platform.defaults.report.swanlab.project" (dig "report" "swanlab" "project" nil $defaults) "^[0-9A-Za-z_.+-]{1,100}$" "at most 100 letters, digits and _ . + -, as SwanLab takes it")
  (list "platform.defaults.resources.timeout" (dig "resources" "timeout" nil $defaults) $duration "a duration like 90m, 24h or 3d")
  (list "platform.defaults.resources.queue" (dig "resources" "queue" nil $defaults) (printf "^%s$" $label) "the name of a Kueue LocalQueue")
  (list "platform.defaults.resources.priority" (dig "resources" "priority" nil $defaults) $name "the name of a PriorityClass")
  (list "platform.defaults.storage.uri" (dig "storage" "uri" nil $defaults) $bucket "s3://BUCKET/PREFIX")
  (list "platform.defaults.model.name" (dig "model" "name" nil $defaults) "^." "a catalog name, modelscope:ORG/NAME, hf:ORG/NAME or a folder")
  (list "cache.storageClass" .Values.cache.storageClass $name $object)
-}}
{{- range $i, $each := $p.imagePullSecrets }}{{ $rules = append $rules (list (printf "platform.imagePullSecrets[%d]" $i) $each $name $object) }}{{ end -}}
{{- $selectors := dict "platform.scheduling.nodeSelector" $p.scheduling.nodeSelector -}}
{{- range $type, $of := $p.scheduling.gpuTypes }}{{ $_ := set $selectors (print "platform.scheduling.gpuTypes." $type) $of }}{{ end -}}
{{- range $path, $selector := $selectors -}}
{{- range $k, $v := $selector }}{{ $rules = concat $rules (list (list (printf "%s: %s" $path $k) $k $key $labels) (list (printf "%s.%s" $path $k) $v $value $labels)) }}{{ end -}}
{{- end -}}
{{- range $i, $each := $p.scheduling.tolerations -}}
{{- $path := printf "platform.scheduling.tolerations[%d]" $i -}}
{{- $of := dict "key" "" "value" "" "operator" "Equal" "effect" "" | merge (deepCopy $each) -}}
{{- if $of.key }}{{ $rules = append $rules (list (print $path ".key") $of.key $key "the key of a taint, like nvidia.com/gpu") }}
{{- else if ne $of.operator "Exists" }}{{ $_ := printf "%s has no key: that must have the operator Exists, and tolerates all taints" $path | append $state.wrong | set $state "wrong" }}{{ end -}}
{{- if and $of.value (eq $of.operator "Exists") }}{{ $_ := printf "%s.value is %q: with the operator Exists there must be none" $path $of.value | append $state.wrong | set $state "wrong" }}{{ end -}}
{{- $rules = append $rules (list (print $path ".value") $of.value $value "the value of a taint, like present") -}}
{{- if and (hasKey $of "tolerationSeconds") (ne $of.effect "NoExecute") }}{{ $_ := printf "%s.tolerationSeconds is set: it must come with the effect NoExecute" $path | append $state.wrong | set $state "wrong" }}{{ end -}}
{{- end -}}
{{- range $rule := $rules -}}
{{- $given := index $rule 1 -}}
{{- if not (kindIs "invalid" $given) -}}
{{- if not (and (regexMatch (index $rule 2) (toString $given)) (lt (len (toString $given)) 2048)) -}}
{{- $_ := printf "%s is %s: it must be %s" (index $rule 0) (toJson $given) (index $rule 3) | append $state.wrong | set $state "wrong" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "(^|[.])kubernetes[.]io/" $p.scheduling.gpuResource }}{{ $_ := printf "platform.scheduling.gpuResource is %q: it must be the name of an extended resource, like nvidia.com/gpu" $p.scheduling.gpuResource | append $state.wrong | set $state "wrong" }}{{ end -}}
{{- include "lorajob.checkWaits" (dict "Values" .Values "state" $state) -}}
{{- include "lorajob.checkAmounts" (dict "Values" .Values "state" $state) -}}
{{- if not $state.wrong }}{{ include "lorajob.checkDefaults" (dict "Values" .Values "state" $state) }}{{ end -}}
{{- if $state.wrong }}{{ fail (printf "these values cannot be used:\n- %s" (join "\n- " $state.wrong)) }}{{ end -}}
{{- end -}}

{{/* Durations with bounds: of each of `Values` what is out of them, or none, goes into `state.wrong`. */}}
{{- define "lorajob.checkWaits" -}}
{{- $state := .state -}}
{{- range $path, $given := dict "platform.storage.patience" .Values.platform.storage.patience "platform.stallAfter" .Values.platform.stallAfter -}}
{{- if not (kindIs "invalid" $given) -}}
{{- /* what has more digits is longer than any of them, and than a number */ -}}
{{- $seconds := 0 -}}
{{- if regexMatch "^[1-9][0-9]{0,5}[smhd]$" $given }}{{ $seconds = include "lorajob.seconds" $given | int64 }}{{ end -}}
{{- if or (lt $seconds 60) (gt $seconds 604800) -}}
{{- $_ := printf "%s is %s: it must be a duration from 1m to 7d, like 30m or 2h" $path (toJson $given) | append $state.wrong | set $state "wrong" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Quantities: of each of `Values` what is too small, or none, goes into `state.wrong`. */}}
{{- define "lorajob.checkAmounts" -}}
{{- $state := .state -}}
{{- $p := .Values.platform -}}
{{- $cpu := dig "resources" "cpu" "auto" $p.defaults -}}
{{- $memory := dig "resources" "memory" "auto" $p.defaults -}}
{{- $size := "a size of at least 1Mi, like 64Gi" -}}
{{- $amount := "a quantity above 0, like 8, 500m or 64Gi" -}}
{{- range $rule := list
  (list "platform.resources.cpuPerGpu" $p.resources.cpuPerGpu 0.0 $amount)
  (list "platform.resources.memoryPerGpu" $p.resources.memoryPerGpu 1048576.0 $size)
  (list "platform.resources.gpuMemory" $p.resources.gpuMemory 1048576.0 $size)
  (list "platform.resources.sharedMemory" $p.resources.sharedMemory 1048576.0 $size)
  (list "platform.resources.work" $p.resources.work 1048576.0 $size)
  (list "platform.defaults.resources.cpu" (eq $cpu "auto" | ternary nil $cpu) 0.0 $amount)
  (list "platform.defaults.resources.memory" (eq $memory "auto" | ternary nil $memory) 1048576.0 $size)
  (list "cache.size" .Values.cache.size 1048576.0 $size)
-}}
{{- $given := index $rule 1 -}}
{{- if not (kindIs "invalid" $given) -}}
{{- $found := include "lorajob.amount" (toString $given) | float64 -}}
{{- if or (le $found 0.0) (lt $found (index $rule 2)) -}}
{{- $_ := printf "%s is %s: it must be %s" (index $rule 0) (toJson $given) (index $rule 3) | append $state.wrong | set $state "wrong" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A quantity as a number, 0 for what is none. */}}
{{- define "lorajob.amount" -}}
{{- $scales := dict "" 1.0 "n" 1e-9 "u" 1e-6 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- if regexMatch "^([0-9]+([.][0-9]+)?|[.][0-9]+)([numkMGTPE]|[KMGTPE]i)?$" . -}}
{{- mulf (regexFind "^[0-9.]+" . | float64) (get $scales (regexFind "[A-Za-z]+$" .)) -}}
{{- else -}}0{{- end -}}
{{- end -}}

{{/* A duration in seconds. */}}
{{- define "lorajob.seconds" -}}
{{- $scales := dict "s" 1 "m" 60 "h" 3600 "d" 86400 -}}
{{- mul (regexFind "^[0-9]+" . | int64) (get $scales (regexFind "[smhd]$" .)) -}}
{{- end -}}

{{/* What runs get where their users say nothing must be something that this platform allows. */}}
{{- define "lorajob.checkDefaults" -}}
{{- $state := .state -}}
{{- $p := .Values.platform -}}
{{- $d := $p.defaults -}}
{{- $limits := $p.limits -}}
{{- $asked := dig "resources" dict $d -}}
{{- $said := list -}}
{{- if hasKey $d "name" }}{{ $said = append $said "name is set: every run needs a name of its own" }}{{ end -}}
{{- $nodes := $asked.nodes | default 1 | int64 -}}
{{- $gpus := mul ($asked.gpus | default 1 | int64) $nodes -}}
{{- with $limits.gpus }}{{ if gt $gpus (int64 .) }}{{ $said = printf "resources.gpus makes %d in all: limits.gpus is %d" $gpus (int64 .) | append $said }}{{ end }}{{ end -}}
{{- with $limits.nodes }}{{ if gt $nodes (int64 .) }}{{ $said = printf "resources.nodes is %d: limits.nodes is %d" $nodes (int64 .) | append $said }}{{ end }}{{ end -}}
{{- if not (or (kindIs "invalid" $asked.retries) (kindIs "invalid" $limits.retries)) }}{{ if gt (int64 $asked.retries) (int64 $limits.retries) }}{{ $said = printf "resources.retries is %d: limits.retries is %d" (int64 $asked.retries) (int64 $limits.retries) | append $said }}{{ end }}{{ end -}}
{{- with $asked.timeout }}{{ if gt (include "lorajob.seconds" . | int64) (include "lorajob.seconds" $limits.timeout | int64) }}{{ $said = printf "resources.timeout is %s: limits.timeout is %s" . $limits.timeout | append $said }}{{ end }}{{ end -}}
{{- if not (kindIs "invalid" $asked.gpuType) }}{{ if not (hasKey $p.scheduling.gpuTypes $asked.gpuType) }}{{ $said = printf "resources.gpuType is %q: it must be one of scheduling.gpuTypes (%s)" $asked.gpuType (keys $p.scheduling.gpuTypes | sortAlpha | join ", ") | append $said }}{{ end }}{{ end -}}
{{- range $role := dig "data" "columns" dict $d | keys }}{{ if not (has $role (list "system" "instruction" "input" "output" "history" "messages" "text")) }}{{ $said = printf "data.columns has %q: the roles are system, instruction, input, output, history, messages, text" $role | append $said }}{{ end }}{{ end -}}
{{- $warmup := dig "train" "warmup" 0.0 $d | float64 -}}
{{- if and (ge $warmup 1.0) (ne $warmup (floor $warmup)) }}{{ $said = printf "train.warmup is %v: it must be whole steps, or a share of all steps below 1" $warmup | append $said }}{{ end -}}
{{- range $field := list "name" "source" }}{{ $at := dig "model" $field "" $d }}{{ if and (hasPrefix "s3://" $at) (not (regexMatch "^s3://[^/]*[^/\\s][^/]*(/.*)?$" $at)) }}{{ $said = printf "model.%s is %q: it must be s3://BUCKET/PREFIX" $field $at | append $said }}{{ end }}{{ end -}}
{{- $source := dig "data" "source" "" $d -}}
{{- if and (hasPrefix "s3://" $source) (not (regexMatch "^s3://[^/]*[^/\\s][^/]*/.*[^/]" $source)) }}{{ $said = printf "data.source is %q: it must be s3://BUCKET/KEY" $source | append $said }}{{ end -}}
{{- if dig "model" "trustRemoteCode" false $d -}}
{{- if not $limits.trustRemoteCode }}{{ $said = append $said "model.trustRemoteCode is true: limits.trustRemoteCode is false" }}
{{- else if has (dig "model" "revision" "" $d) (list "" "main" "master" "latest" "HEAD") }}{{ $said = append $said "model.trustRemoteCode is true: it needs model.revision, the commit whose code you have read" }}{{ end -}}
{{- end -}}
{{- range $said }}{{ $_ := print "platform.defaults." . | append $state.wrong | set $state "wrong" }}{{ end -}}
{{- end -}}
