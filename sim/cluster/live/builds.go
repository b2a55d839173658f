package live

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	configv1 "github.com/openshift/api/config/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/builder"
	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/live/agent"
	"github.com/layersim/layersim/sim/history"
)

// builds is what this process does for real build pods: it answers their agents, and it tells the history how they end.
type builds struct {
	engine  *Engine
	options builder.Options
	core    corev1client.CoreV1Interface

	mu         sync.Mutex
	containers map[string]*container
}

// buildPods implements [cluster.Options].Builds.
func (e *Engine) buildPods(o builder.Options) (cluster.Builds, error) {
	if e.gate == nil {
		return cluster.Builds{}, errors.New("there is no registry")
	}
	agents, err := e.openChannel()
	if err != nil {
		return cluster.Builds{}, err
	}
	core, err := corev1client.NewForConfig(e.Server.config)
	if err != nil {
		return cluster.Builds{}, err
	}
	// What the build pods' service account is for. An interrupted run may have left it.
	name := metav1.ObjectMeta{Namespace: layering.Namespace, Name: "build-pods"}
	for _, o := range []any{
		&rbacv1.Role{TypeMeta: metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "Role"}, ObjectMeta: name,
			Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create", "get", "update"}}}},
		&rbacv1.RoleBinding{TypeMeta: metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "RoleBinding"}, ObjectMeta: name,
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name.Name},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: layering.Namespace, Name: layering.BuilderServiceAccount}}},
	} {
		if err := e.Server.applyTyped(e.ctx, o); err != nil {
			return cluster.Builds{}, err
		}
	}
	if err := e.Server.steer(e.ctx, e.BuildNodes); err != nil {
		return cluster.Builds{}, fmt.Errorf("steer build pods: %w", err)
	}
	b := &builds{engine: e, options: o, core: core, containers: map[string]*container{}}
	agent.Answer(agents.Answers, builder.QuestionPath, b.answer)
	e.watches.Go(func() { b.watch(e.ctx) })
	return cluster.Builds{
		Image: e.BuildImage, Trust: e.gate.authority,
		Proxy: &configv1.ProxyStatus{
			// By that name the build controller's own requests are known, should it run in the cluster; agents put their pod's.
			HTTPSProxy: e.gate.proxyURL("machine-os-builder").String(),
			// Nothing is fetched without TLS. Agents ask layersim here.
			HTTPProxy: agents.world("build-pod").String(),
			NoProxy:   "127.0.0.1,localhost",
		},
	}, nil
}

// answer answers the agent in a build pod.
func (b *builds) answer(ctx context.Context, _ string, q builder.Question) (builder.Answer, error) {
	pods, err := b.core.Pods(layering.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return builder.Answer{}, fmt.Errorf("%w: %w", agent.ErrNotYet, err)
	}
	i := slices.IndexFunc(pods.Items, func(p corev1.Pod) bool { return builder.IsBuildPod(&p) && strings.HasPrefix(p.Name, q.Pod) })
	if q.Pod == "" || i < 0 {
		return builder.Answer{}, fmt.Errorf("there is no build pod %q", q.Pod)
	}
	return b.options.Answer(&pods.Items[i], q.Phase), nil
}

// watch follows the build pods until the run is over.
func (b *builds) watch(ctx context.Context) {
	saw := func(pod *corev1.Pod) {
		if builder.IsBuildPod(pod) {
			b.saw(ctx, pod)
		}
	}
	followPods(ctx, b.core, layering.Namespace, "", saw, saw)
}

// container is one that runs, or has ended.
type container struct {
	exit chan int // gets its exit code
	told bool
}

// saw takes notice of a pod's containers: of one that has started it reads the log, until it ends.
func (b *builds) saw(ctx context.Context, pod *corev1.Pod) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		key := string(pod.UID) + "/" + s.Name
		c := b.containers[key]
		if c == nil && s.ContainerID != "" && (s.State.Running != nil || s.State.Terminated != nil) {
			c = &container{exit: make(chan int, 1)}
			b.containers[key] = c
			record := history.Pod{Namespace: pod.Namespace, Name: pod.Name, Container: s.Name}
			b.engine.watches.Go(func() { b.follow(ctx, record, c) })
		}
		if c != nil && !c.told && s.State.Terminated != nil {
			c.told = true
			c.exit <- int(s.State.Terminated.ExitCode)
		}
	}
}

// follow reads the log of a container while it runs, for it may be gone right after, and tells the history of its end.
func (b *builds) follow(ctx context.Context, record history.Pod, c *container) {
	var err error
	for range 3 { // the kubelet may not have it yet
		if record.Log, err = b.log(ctx, record); err == nil {
			break
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
	if err != nil {
		record.Log = cmp.Or(record.Log, fmt.Sprintf("layersim could not read the log: %v\n", err))
	}
	select {
	case record.ExitCode = <-c.exit:
		b.options.Observe(record)
	case <-ctx.Done():
	}
}

func (b *builds) log(ctx context.Context, p history.Pod) (string, error) {
	stream, err := b.core.Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: p.Container, Follow: true}).Stream(ctx)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	content, err := io.ReadAll(stream)
	if err == nil && strings.HasPrefix(string(content), noInstance) {
		err = fmt.Errorf("%s; raise the limit fs.inotify.max_user_instances", bytes.TrimSpace(content))
		content = nil
	}
	return string(content), err
}

// noInstance is what the kubelet says in place of a log when there is no inotify instance left to follow it with.
const noInstance = "failed to create fsnotify watcher"

// steering puts build pods on real nodes, and lets them take the image that is there. Pods of workloads, which have no image
// at all, belong on simulated nodes, whose kubelets are models.
const steering = `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: layersim-build-pods}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}
  matchConditions:
  - name: builds
    expression: >-
      object.spec.containers.exists(c, c.name == "image-build") ||
      has(object.spec.initContainers) && object.spec.initContainers.exists(c, c.name == "image-build")
  mutations:
  - patchType: JSONPatch
    jsonPatch:
      expression: >-
        [JSONPatch{op: "add", path: "/spec/nodeSelector", value: {"LABEL": "true"}},
        JSONPatch{op: "add", path: "/spec/containers/0/imagePullPolicy", value: "IfNotPresent"}] +
        (object.spec.containers.size() > 1 ?
        [JSONPatch{op: "add", path: "/spec/containers/1/imagePullPolicy", value: "IfNotPresent"}] : []) +
        (has(object.spec.initContainers) && object.spec.initContainers.size() > 0 ?
        [JSONPatch{op: "add", path: "/spec/initContainers/0/imagePullPolicy", value: "IfNotPresent"}] : [])
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: layersim-build-pods}
spec: {policyName: layersim-build-pods}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: layersim-workloads}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}
  matchConditions:
  - {name: free, expression: '!has(object.spec.affinity) && !(has(object.spec.nodeName) && object.spec.nodeName != "")'}
  - {name: workload, expression: '!request.namespace.startsWith("kube-") && request.namespace != "local-path-storage"'}
  - {name: elsewhere, expression: '!(has(object.spec.nodeSelector) && "LABEL" in object.spec.nodeSelector)'}
  - name: builds
    expression: >-
      !object.spec.containers.exists(c, c.name == "image-build") &&
      !(has(object.spec.initContainers) && object.spec.initContainers.exists(c, c.name == "image-build"))
  mutations:
  - patchType: JSONPatch
    jsonPatch:
      expression: >-
        [JSONPatch{op: "add", path: "/spec/affinity", value: {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions": [{"key": "LABEL", "operator": "DoesNotExist"}]}]}}}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: layersim-workloads}
spec: {policyName: layersim-workloads}
`

// steer puts build pods, whoever makes them, on nodes with a label, and lets them run in the image that is there, and keeps
// workloads away from these nodes, by admission policies. It returns when the API server goes by them.
func (s *Server) steer(ctx context.Context, label string) error {
	for text := range strings.SplitSeq(strings.ReplaceAll(steering, "LABEL", label), "---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
			return err
		}
		mapping, err := s.mapper.RESTMapping(o.GroupVersionKind().GroupKind(), "v1")
		if err == nil {
			_, err = s.dynamic.Resource(mapping.Resource).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: "layersim", Force: true})
		}
		if err != nil {
			return err
		}
	}
	trial := func(container string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "layersim-trial"},
			"spec": map[string]any{"containers": []any{map[string]any{"name": container, "image": "none"}}},
		}}
	}
	pods := s.dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace(metav1.NamespaceDefault)
	var last error
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		var build, workload *unstructured.Unstructured
		if build, last = pods.Create(ctx, trial(builder.ContainerBuild), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); last == nil {
			workload, last = pods.Create(ctx, trial("workload"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		}
		if last != nil {
			return false, nil // there may be no service account yet
		}
		selector, _, err := unstructured.NestedStringMap(build.Object, "spec", "nodeSelector")
		_, away, _ := unstructured.NestedMap(workload.Object, "spec", "affinity")
		return selector[label] == "true" && away, err
	})
	if err != nil {
		return fmt.Errorf("wait until the policy is in force: %w (%v)", err, last)
	}
	return nil
}
