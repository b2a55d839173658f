package live

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/ptr"

	"github.com/layersim/layersim/sim/builder"
	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/live/agent"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/registry"
)

// RegistryPod says how the registry is run in the cluster: as Deployment image-registry, behind a Service of that name, whose
// images are in the folder RegistryStorage of a node.
type RegistryPod struct {
	// Image has layersim's agent as /usr/bin/layersim-agent. It is on the nodes already.
	Image string
	// Node is a label that nodes with a kubelet have, with the value "true".
	Node string
	// Trust, where not nil, tells the nodes' container runtime how a host of the registry is reached: where, and by which
	// authority's certificate (PEM).
	Trust func(host, endpoint string, authority []byte) error
}

const (
	// RegistryStorage is where a node keeps the registry's images.
	RegistryStorage   = "/var/lib/layersim/registry"
	registryNamespace = "openshift-image-registry"
	registryName      = "image-registry"
)

// inCluster is a registry in the cluster. See [cluster.Registry].
type inCluster struct {
	engine *Engine
	agent  *agent.Asker
	// soon is agent for requests that rather fail than wait.
	soon    *agent.Asker
	options cluster.RegistryOptions
	core    corev1client.CoreV1Interface

	mu       sync.Mutex // guards what follows
	settings agent.Settings
}

// openRegistry implements [cluster.Options].Registry. It returns when the registry answers.
func (e *Engine) openRegistry(o cluster.RegistryOptions) (cluster.Registry, error) {
	agents, err := e.openChannel()
	if err != nil {
		return nil, err
	}
	r := &inCluster{engine: e, options: o, settings: agent.Settings{
		Run: strings.ToLower(rand.Text())[:8], Hosts: o.Hosts, Host: cluster.InternalRegistry, Quotas: map[string]int64{}}}
	if r.core, err = corev1client.NewForConfig(e.Server.config); err != nil {
		return nil, err
	}
	if r.agent, err = e.asker("services", registryNamespace, registryName); err != nil {
		return nil, err
	}
	soon := *r.agent
	r.soon = &soon
	r.soon.Patience = patience
	r.answer(agents.Answers)
	if err := r.deploy(agents); err != nil {
		return nil, err
	}
	return r, nil
}

// answer lets the agent ask and tell.
func (r *inCluster) answer(a *agent.Answers) {
	agent.Answer(a, agent.SettingsPath, func(context.Context, string, struct{}) (agent.Settings, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.snapshot(), nil
	})
	agent.Answer(a, agent.RequestPath, func(ctx context.Context, _ string, q agent.Request) (agent.Verdict, error) { return r.judge(ctx, q) })
	agent.Answer(a, agent.CallerPath, func(ctx context.Context, _ string, address string) (string, error) { return r.caller(ctx, address) })
	agent.Answer(a, agent.JournalPath, func(_ context.Context, _ string, j history.Registry) (struct{}, error) {
		r.options.Observe(j)
		return struct{}{}, nil
	})
}

// judge says what becomes of a request, as the hooks of a registry in this process would.
func (r *inCluster) judge(ctx context.Context, q agent.Request) (agent.Verdict, error) {
	request, err := http.NewRequestWithContext(ctx, q.Method, "https://"+q.Host+q.Path, nil)
	if err != nil {
		return agent.Verdict{}, err
	}
	if err := r.options.ErrorHook(request, q.Caller); err != nil {
		return agent.Verdict{Error: err.Error()}, nil
	}
	response := r.options.Hook(request, q.Caller)
	if response == nil {
		return agent.Verdict{}, nil
	}
	defer response.Body.Close()
	var b bytes.Buffer
	if err := response.Write(&b); err != nil {
		return agent.Verdict{}, fmt.Errorf("write response: %w", err)
	}
	return agent.Verdict{Response: b.Bytes()}, nil
}

// caller says who is at an address of the cluster: a build pod, a controller, another pod; or a node, whose own requests come
// from the first address of its pods' range.
func (r *inCluster) caller(ctx context.Context, address string) (string, error) {
	ip := net.ParseIP(address)
	if ip == nil {
		return "", fmt.Errorf("%q is not an address", address)
	}
	pods, err := r.core.Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: "status.podIP=" + ip.String()})
	if err != nil {
		return "", fmt.Errorf("%w: %w", agent.ErrNotYet, err)
	}
	for n := range pods.Items {
		p := &pods.Items[n]
		switch {
		case p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
		case builder.IsBuildPod(p):
			return "build-pod/" + p.Name, nil
		default:
			return cmp.Or(p.Labels["k8s-app"], p.Labels["app"], "pod/"+p.Name), nil
		}
	}
	nodes, err := r.core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("%w: %w", agent.ErrNotYet, err)
	}
	for _, n := range nodes.Items {
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP && ip.Equal(net.ParseIP(a.Address)) {
				return "node/" + n.Name, nil
			}
		}
		if _, pods, err := net.ParseCIDR(n.Spec.PodCIDR); err == nil && pods.Contains(ip) {
			return "node/" + n.Name, nil
		}
	}
	return "", nil
}

// deploy runs the registry, and waits until it answers.
func (r *inCluster) deploy(agents *channel) error {
	e := r.engine
	meta := metav1.ObjectMeta{Namespace: registryNamespace, Name: registryName}
	labels := map[string]string{"app": registryName}
	account := &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: meta}
	service := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: meta, Spec: corev1.ServiceSpec{
		Selector: labels,
		Ports: []corev1.ServicePort{
			{Name: "registry", Port: agent.RegistryPort, TargetPort: intstr.FromInt32(agent.RegistryPort)},
			{Name: "proxy", Port: agent.ProxyPort, TargetPort: intstr.FromInt32(agent.ProxyPort)},
			{Name: "admin", Port: agent.AdminPort, TargetPort: intstr.FromInt32(agent.AdminPort)},
		},
	}}
	if err := errors.Join(r.apply(account), r.apply(service)); err != nil {
		return err
	}
	made, err := r.core.Services(registryNamespace).Get(e.ctx, registryName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("address of service %s: %w", registryName, err)
	}
	address := made.Spec.ClusterIP
	names := []string{registryName, registryName + "." + registryNamespace, registryName + "." + registryNamespace + ".svc",
		registryName + "." + registryNamespace + ".svc.cluster.local", address}
	certificate, key, err := agent.Certify(append(names, r.options.Hosts...)...)
	if err != nil {
		return err
	}
	// What a pod is given never changes: the next run gives another Secret.
	gift := &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: registryNamespace, Name: registryName + "-" + r.settings.Run}, Immutable: ptr.To(true),
		Data: map[string][]byte{
			agent.WorldFile: []byte(agents.world("registry").String()), corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key},
	}
	if err := errors.Join(r.apply(gift), r.apply(r.manifest(meta, labels, gift.Name))); err != nil {
		return err
	}
	e.followLogs(registryNamespace, "app="+registryName, registryName)
	starting := *r.agent
	starting.Patience = deployLimit
	if err := starting.Ask(e.ctx, agent.SetPath, r.settings, nil); err != nil {
		return fmt.Errorf("wait for the registry: %w%s", err, e.states(registryNamespace, "app="+registryName))
	}
	if r.engine.Registry.Trust != nil {
		endpoint := "https://" + net.JoinHostPort(address, fmt.Sprint(agent.RegistryPort))
		for _, host := range r.options.Hosts {
			if err := r.engine.Registry.Trust(host, endpoint, certificate); err != nil {
				return err
			}
		}
	}
	e.gate = &gate{address: net.JoinHostPort(address, fmt.Sprint(agent.ProxyPort)), authority: certificate}
	return nil
}

func (r *inCluster) manifest(meta metav1.ObjectMeta, labels map[string]string, gift string) *appsv1.Deployment {
	o := r.engine.Registry
	health := &corev1.HTTPGetAction{Path: agent.HealthPath, Port: intstr.FromInt32(agent.AdminPort)}
	return &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: meta,
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}, // two would not know of each other
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					ServiceAccountName: meta.Name, AutomountServiceAccountToken: ptr.To(false), EnableServiceLinks: ptr.To(false),
					NodeSelector: map[string]string{o.Node: "true"}, TerminationGracePeriodSeconds: ptr.To[int64](5),
					Volumes: []corev1.Volume{
						{Name: "layersim", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: gift, DefaultMode: ptr.To[int32](0o444)}}},
						{Name: "storage", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{
							Path: RegistryStorage, Type: ptr.To(corev1.HostPathDirectoryOrCreate)}}},
					},
					Containers: []corev1.Container{{
						Name: "registry", Image: o.Image, ImagePullPolicy: corev1.PullNever,
						Command: []string{"/usr/bin/layersim-agent", "registry"},
						Ports: []corev1.ContainerPort{
							{Name: "registry", ContainerPort: agent.RegistryPort}, {Name: "proxy", ContainerPort: agent.ProxyPort},
							{Name: "admin", ContainerPort: agent.AdminPort},
						},
						VolumeMounts: []corev1.VolumeMount{
							{Name: "layersim", MountPath: agent.Given, ReadOnly: true}, {Name: "storage", MountPath: RegistryStorage}},
						// Not to be taken for dead on a machine that has too much to do.
						ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: health}, PeriodSeconds: 1, TimeoutSeconds: 5},
						LivenessProbe:  &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: health}, PeriodSeconds: 10, TimeoutSeconds: 10, FailureThreshold: 6},
						SecurityContext: &corev1.SecurityContext{
							ReadOnlyRootFilesystem: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false),
							Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
						},
					}},
				},
			},
		},
	}
}

func (r *inCluster) apply(o any) error { return r.engine.Server.applyTyped(r.engine.ctx, o) }

// snapshot is a copy of the settings. The caller holds the lock.
func (r *inCluster) snapshot() agent.Settings {
	s := r.settings
	s.Accounts, s.Quotas = slices.Clone(s.Accounts), maps.Clone(s.Quotas)
	return s
}

// change changes the settings, and returns when the registry goes by them.
func (r *inCluster) change(what string, change func(*agent.Settings)) {
	r.mu.Lock()
	change(&r.settings)
	r.settings.Version++
	s := r.snapshot()
	r.mu.Unlock()
	// One that is started meanwhile asks for them.
	if err := r.agent.Ask(r.engine.ctx, agent.SetPath, s, nil); err != nil && r.engine.ctx.Err() == nil {
		r.engine.cancel(fmt.Errorf("%s of the registry: %w", what, err))
	}
}

// SetAccount implements [cluster.Registry], as do the methods that follow.
func (r *inCluster) SetAccount(a registry.Account) {
	r.change("account "+a.Name, func(s *agent.Settings) {
		s.Accounts = append(without(s.Accounts, a.Name), a)
	})
}

// RemoveAccount implements [cluster.Registry].
func (r *inCluster) RemoveAccount(name string) {
	r.change("account "+name, func(s *agent.Settings) { s.Accounts = without(s.Accounts, name) })
}

func without(list []registry.Account, name string) []registry.Account {
	return slices.DeleteFunc(slices.Clone(list), func(a registry.Account) bool { return a.Name == name })
}

// SetQuota implements [cluster.Registry].
func (r *inCluster) SetQuota(repository string, bytes int64) {
	r.change("quota of "+repository, func(s *agent.Settings) { s.Quotas[repository] = bytes })
}

// PutImage implements [cluster.Registry].
func (r *inCluster) PutImage(ref string, image v1.Image) (digest string, err error) {
	content, err := registry.Load(image)
	if err != nil {
		return "", fmt.Errorf("put image %s: %w", ref, err)
	}
	err = r.agent.Ask(r.engine.ctx, agent.PutImagePath, agent.Image{Reference: ref, Content: content}, &digest)
	return digest, err
}

// Delete implements [cluster.Registry].
func (r *inCluster) Delete(ref string) error {
	return r.agent.Ask(r.engine.ctx, agent.DeleteImagePath, ref, nil)
}

// Transport implements [cluster.Registry]: the way of somebody in this process.
func (r *inCluster) Transport(caller string) http.RoundTripper { return exchanger{r, caller} }

type exchanger struct {
	registry *inCluster
	caller   string
}

func (x exchanger) RoundTrip(request *http.Request) (*http.Response, error) {
	var b bytes.Buffer
	if err := request.Write(&b); err != nil { // closes the body
		return nil, fmt.Errorf("write request: %w", err)
	}
	var answer agent.Exchange
	err := x.registry.soon.Ask(request.Context(), agent.ExchangePath, agent.Exchange{Caller: x.caller, Message: b.Bytes()}, &answer)
	switch {
	case err != nil:
		return nil, err
	case answer.Error != "":
		return nil, errors.New(answer.Error)
	}
	return http.ReadResponse(bufio.NewReader(bytes.NewReader(answer.Message)), request)
}
