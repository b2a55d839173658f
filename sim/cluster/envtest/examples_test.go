//go:build likeness

package envtest_test

// examples has a valid object of each kind, from which mutants are made.
var examples = map[string]string{
	"ConfigMap": `
apiVersion: v1
kind: ConfigMap
metadata: {name: ex, labels: {l: x}, annotations: {a: b}}
data: {k: v}
`,
	"Secret": `
apiVersion: v1
kind: Secret
metadata: {name: ex, labels: {l: x}}
type: kubernetes.io/dockerconfigjson
data: {.dockerconfigjson: e30=}
`,
	"Node": `
apiVersion: v1
kind: Node
metadata: {name: ex, labels: {node-role.kubernetes.io/worker: ""}}
spec:
  providerID: a
  unschedulable: true
  taints: [{key: k, effect: NoSchedule, value: v}]
status:
  capacity: {cpu: "4", memory: 16Gi, pods: "250"}
  allocatable: {cpu: "4"}
  addresses: [{type: InternalIP, address: 10.0.0.1}]
  conditions: [{type: Ready, status: "True", reason: KubeletReady, message: m}]
`,
	"Namespace": `
apiVersion: v1
kind: Namespace
metadata: {name: ex, labels: {l: x}}
`,
	"ServiceAccount": `
apiVersion: v1
kind: ServiceAccount
metadata: {name: ex, labels: {l: x}}
secrets: [{name: s}]
imagePullSecrets: [{name: s}]
`,
	"Pod": `
apiVersion: v1
kind: Pod
metadata: {name: ex, labels: {l: x}}
spec:
      restartPolicy: Never
      nodeSelector: {a: b}
      terminationGracePeriodSeconds: 5
      tolerations: [{key: k, operator: Exists, effect: NoSchedule}]
      initContainers: [{name: i, image: "quay.io/x/y:v1"}]
      containers:
      - name: c
        image: quay.io/x/y:v1
        command: [sh, -c, "true"]
        env: [{name: A, value: b}]
        ports: [{containerPort: 80, name: http}]
        resources: {requests: {cpu: 100m, memory: 1Gi}}
        volumeMounts: [{name: v, mountPath: /v}]
        securityContext: {privileged: true}
      volumes: [{name: v, emptyDir: {}}, {name: w, secret: {secretName: s}}, {name: z, configMap: {name: s}}]
`,
	"Job": `
apiVersion: batch/v1
kind: Job
metadata: {name: ex, labels: {l: x}}
spec:
  backoffLimit: 3
  completions: 1
  parallelism: 1
  template:
    metadata: {labels: {p: q}}
    spec:
      restartPolicy: Never
      containers:
      - name: c
        image: quay.io/x/y:v1
        env: [{name: A, value: b}]
        volumeMounts: [{name: v, mountPath: /v}]
      volumes: [{name: v, emptyDir: {}}, {name: w, secret: {secretName: s}}]
`,
	"Deployment": `
apiVersion: apps/v1
kind: Deployment
metadata: {name: ex, labels: {l: x}}
spec:
  replicas: 2
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec:
      containers: [{name: c, image: "quay.io/x/y:v1"}]
`,
	"ReplicaSet": `
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: ex, labels: {l: x}}
spec:
  replicas: 2
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec:
      containers: [{name: c, image: "quay.io/x/y:v1"}]
`,
	"DaemonSet": `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: ex, labels: {l: x}}
spec:
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec:
      containers: [{name: c, image: "quay.io/x/y:v1"}]
`,
	"PodDisruptionBudget": `
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: ex, labels: {l: x}}
spec:
  minAvailable: 1
  selector: {matchLabels: {app: a}}
`,
	"Lease": `
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: ex, labels: {l: x}}
spec: {holderIdentity: a, leaseDurationSeconds: 40, leaseTransitions: 1}
`,
	"Event": `
apiVersion: v1
kind: Event
metadata: {name: ex.1, labels: {l: x}}
involvedObject: {kind: Pod, namespace: likeness, name: p, apiVersion: v1}
reason: R
message: m
type: Normal
count: 1
source: {component: c}
`,
	"Role": `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: ex, labels: {l: x}}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
`,
	"ClusterRoleBinding": `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ex, labels: {l: x}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: r}
subjects: [{kind: ServiceAccount, name: a, namespace: b}]
`,
	"MachineOSConfig": `
apiVersion: machineconfiguration.openshift.io/v1
kind: MachineOSConfig
metadata: {name: ex, labels: {l: x}}
spec:
  machineConfigPool: {name: ex}
  imageBuilder: {imageBuilderType: Job}
  baseImagePullSecret: {name: base}
  renderedImagePushSecret: {name: push}
  renderedImagePushSpec: quay.io/a/b:latest
  containerFile: [{containerfileArch: NoArch, content: FROM configs AS final}]
status:
  observedGeneration: 1
  currentImagePullSpec: quay.io/a/b@sha256:0123456789012345678901234567890123456789012345678901234567890123
  machineOSBuild: {name: b}
  conditions: [{type: Failed, status: "True", reason: R, message: m, lastTransitionTime: "2026-01-01T00:00:00Z"}]
`,
	"MachineOSBuild": `
apiVersion: machineconfiguration.openshift.io/v1
kind: MachineOSBuild
metadata: {name: ex, labels: {l: x}}
spec:
  machineConfig: {name: rendered-layered-1}
  machineOSConfig: {name: layered}
  renderedImagePushSpec: quay.io/a/b:latest
status:
  buildStart: "2026-01-01T00:00:00Z"
  digestedImagePushSpec: quay.io/a/b@sha256:0123456789012345678901234567890123456789012345678901234567890123
  conditions: [{type: Building, status: "True", reason: R, message: m, lastTransitionTime: "2026-01-01T00:00:00Z"}]
  relatedObjects: [{group: batch, resource: jobs, name: j, namespace: n}]
`,
	"MachineConfigPool": `
apiVersion: machineconfiguration.openshift.io/v1
kind: MachineConfigPool
metadata: {name: ex, labels: {l: x}}
spec:
  paused: false
  maxUnavailable: 1
  machineConfigSelector: {matchExpressions: [{key: r, operator: In, values: [worker, layered]}]}
  nodeSelector: {matchLabels: {node-role.kubernetes.io/layered: ""}}
  configuration: {name: rendered-layered-1, source: [{apiVersion: v1, kind: MachineConfig, name: a}]}
status:
  machineCount: 1
  conditions: [{type: Updated, status: "True", reason: "", message: "", lastTransitionTime: "2026-01-01T00:00:00Z"}]
`,
	"MachineConfig": `
apiVersion: machineconfiguration.openshift.io/v1
kind: MachineConfig
metadata: {name: ex, labels: {machineconfiguration.openshift.io/role: layered}}
spec:
  osImageURL: quay.io/a/b
  kernelArguments: [a=b]
  extensions: [usbguard]
  fips: false
  kernelType: default
  config: {ignition: {version: 3.4.0}, storage: {files: [{path: /etc/a, mode: 420, contents: {source: "data:,a"}}]}}
`,
	"MachineConfigNode": `
apiVersion: machineconfiguration.openshift.io/v1
kind: MachineConfigNode
metadata: {name: ex, labels: {l: x}}
spec:
  node: {name: ex}
  pool: {name: layered}
  configVersion: {desired: rendered-layered-1}
status:
  observedGeneration: 1
  configVersion: {current: rendered-layered-1, desired: rendered-layered-1}
  conditions: [{type: Updated, status: "True", reason: R, message: m, lastTransitionTime: "2026-01-01T00:00:00Z"}]
`,
	"Machine": `
apiVersion: machine.openshift.io/v1beta1
kind: Machine
metadata: {name: ex, labels: {l: x}}
spec:
  providerID: a
  metadata: {labels: {a: b}}
  taints: [{key: k, effect: NoSchedule}]
  lifecycleHooks: {preDrain: [{name: Hook, owner: ooo}]}
status: {phase: Running, nodeRef: {name: a}}
`,
	"MachineSet": `
apiVersion: machine.openshift.io/v1beta1
kind: MachineSet
metadata: {name: ex, labels: {l: x}}
spec:
  replicas: 2
  deletePolicy: Random
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {providerSpec: {value: {x: "y"}}}}
status: {replicas: 1}
`,
}
