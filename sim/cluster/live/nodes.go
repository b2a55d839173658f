package live

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/cluster/live/agent"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/node"
)

// AgentsNamespace is where agents run that stand for nothing that a cluster has.
const AgentsNamespace = "layersim"

// nodesName is the Deployment of the machines' agent, and the process that it runs.
const nodesName = "node-agents"

// nodes are machines in a pod of the cluster. See [cluster.Fleet].
type nodes struct {
	engine  *Engine
	options node.FleetOptions
	agent   *agent.Asker
	orders  chan order

	mu   sync.Mutex // guards what follows
	has  map[string]bool
	told map[int]int // the serial of the last record of each machine
}

// order is one for the agent. Orders are carried out one after the other.
type order struct {
	agent.NodesOrder
	done chan error
	// patience is how long the pod may be away: it may be stopped, or be starting.
	patience time.Duration
}

// openNodes implements [cluster.Options].Fleet: it prepares the process node-agents, which Start then runs.
func (e *Engine) openNodes(o node.FleetOptions) (cluster.Fleet, error) {
	agents, err := e.openChannel()
	if err != nil {
		return nil, err
	}
	n := &nodes{engine: e, options: o, orders: make(chan order, 64), has: map[string]bool{}, told: map[int]int{}}
	if n.agent, err = e.asker("services", AgentsNamespace, nodesName); err != nil {
		return nil, err
	}
	if err := e.Server.sweep(e.ctx); err != nil {
		return nil, fmt.Errorf("remove the machines of an earlier run: %w", err)
	}
	options, err := json.Marshal(agent.NodesOptions{Run: strings.ToLower(rand.Text())[:8], Seed: o.Seed, Durations: o.Durations,
		NoMachineConfigNodes: o.NoMachineConfigNodes})
	if err != nil {
		return nil, err
	}
	agent.Answer(agents.Answers, agent.NodesTellPath, n.hear)
	agent.Answer(agents.Answers, agent.NodesBeforePath, n.before)
	e.outfits = map[string]outfit{nodesName: {*e.Nodes, nodesManifest(), map[string][]byte{
		agent.WorldFile: []byte(agents.world(nodesName).String()), agent.NodesFile: options}, n.next}}
	service := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: AgentsNamespace, Name: nodesName, Labels: nodesLabels()},
		Spec: corev1.ServiceSpec{Selector: nodesLabels(),
			Ports: []corev1.ServicePort{{Name: "admin", Port: agent.AdminPort, TargetPort: intstr.FromInt32(agent.AdminPort)}}}}
	if err := e.Server.applyTyped(e.ctx, service); err != nil {
		return nil, err
	}
	e.watches.Go(n.deliver)
	return n, nil
}

func nodesLabels() map[string]string { return map[string]string{"app": nodesName} }

// sweep removes the agent that an earlier run left for who looks at its machines.
func (s *Server) sweep(ctx context.Context) error {
	api, err := kubernetes.NewForConfig(s.config)
	if err != nil {
		return err
	}
	background := metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0), PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}
	err = api.AppsV1().Deployments(AgentsNamespace).Delete(ctx, nodesName, background)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	labelled := metav1.ListOptions{LabelSelector: "app=" + nodesName}
	return errors.Join(
		api.CoreV1().Secrets(AgentsNamespace).DeleteCollection(ctx, background, labelled),
		api.AppsV1().ReplicaSets(AgentsNamespace).DeleteCollection(ctx, background, labelled),
		api.CoreV1().Pods(AgentsNamespace).DeleteCollection(ctx, background, labelled))
}

// nodesManifest is the Deployment, without what each of its lives is given.
func nodesManifest() *appsv1.Deployment {
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Namespace: AgentsNamespace, Name: nodesName, Labels: nodesLabels()},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: nodesLabels()},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}, // there is one of each machine
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: nodesLabels()},
				Spec: corev1.PodSpec{
					ServiceAccountName: nodesName, AutomountServiceAccountToken: ptr.To(false), EnableServiceLinks: ptr.To(false),
					TerminationGracePeriodSeconds: ptr.To[int64](5),
					Volumes: []corev1.Volume{{Name: "storage", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{
						Path: agent.NodesFolder, Type: ptr.To(corev1.HostPathDirectoryOrCreate)}}}},
					Containers: []corev1.Container{{
						Name: nodesName, Command: []string{"/usr/bin/layersim-agent", "nodes"},
						Ports:        []corev1.ContainerPort{{Name: "admin", ContainerPort: agent.AdminPort}},
						VolumeMounts: []corev1.VolumeMount{{Name: "storage", MountPath: agent.NodesFolder}},
						ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
							Path: agent.HealthPath, Port: intstr.FromInt32(agent.AdminPort)}}},
						Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{}},
						SecurityContext: &corev1.SecurityContext{
							ReadOnlyRootFilesystem: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false),
							Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
						},
						TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
					}},
				},
			},
		},
	}
}

// next asks when the machines' agents look again by themselves.
func (n *nodes) next(ctx context.Context) (next time.Time, err error) {
	asker := *n.agent
	asker.Patience = askAgain
	err = asker.Ask(ctx, agent.NodesNextPath, nil, &next)
	return next, err
}

// hear takes notice of what happened. What is told a second time, because the agent ended before it knew that it was heard, is
// known already.
func (n *nodes) hear(_ context.Context, _ string, news agent.NodesNews) (struct{}, error) {
	if news.Component != nil {
		n.engine.Record(history.Record{Component: news.Component})
	}
	if news.Node == nil {
		return struct{}{}, nil
	}
	n.mu.Lock()
	known := news.Serial <= n.told[news.Machine]
	n.told[news.Machine] = max(n.told[news.Machine], news.Serial)
	n.mu.Unlock()
	if !known {
		n.options.Observe(*news.Node)
	}
	return struct{}{}, nil
}

// before says what goes wrong with a phase of a machine.
func (n *nodes) before(_ context.Context, _ string, p agent.NodesPhase) (agent.NodesFault, error) {
	if err := n.options.Before(p.Node, p.Phase); err != nil {
		return agent.NodesFault{Message: cmp.Or(err.Error(), "failed"), Hangs: errors.Is(err, node.ErrHang)}, nil
	}
	return agent.NodesFault{}, nil
}

// deliver hands orders to the agent until the run is over.
func (n *nodes) deliver() {
	for {
		select {
		case <-n.engine.ctx.Done():
			return
		case o := <-n.orders:
			patient := *n.agent
			patient.Patience = o.patience
			o.done <- patient.Ask(n.engine.ctx, agent.NodesOrderPath, o.NodesOrder, nil)
		}
	}
}

// orderPatience is how long an order is waited for that nobody has to wait for.
const orderPatience = 5 * time.Second

// do gives an order, and waits until it is carried out.
func (n *nodes) do(o agent.NodesOrder) error {
	done := make(chan error, 1)
	n.orders <- order{o, done, deployLimit}
	select {
	case err := <-done:
		return err
	case <-time.After(deployLimit + time.Second): // another order is in its way
		return fmt.Errorf("the agent has not done it after %s", deployLimit+time.Second)
	case <-n.engine.ctx.Done():
		return context.Cause(n.engine.ctx)
	}
}

// force gives an order that can't fail. Where the agent doesn't run it waits for it no longer than that it would do harm: it may
// be the same goroutine that has to start it.
func (n *nodes) force(o agent.NodesOrder) {
	done := make(chan error, 1)
	n.orders <- order{o, done, 24 * time.Hour} // whoever stopped the pod sees to how long
	failed := func(err error) {
		if err != nil && n.engine.ctx.Err() == nil {
			n.engine.cancel(fmt.Errorf("%s of machine %s: %w", o.Do, o.Name, err))
		}
	}
	select {
	case err := <-done:
		failed(err)
	case <-time.After(orderPatience):
		n.engine.watches.Go(func() {
			select {
			case err := <-done:
				failed(err)
			case <-n.engine.ctx.Done():
			}
		})
	case <-n.engine.ctx.Done():
	}
}

// Install implements [cluster.Fleet], as do the methods that follow.
func (n *nodes) Install(spec node.HostSpec) error {
	o := agent.NodesOrder{Do: agent.NodeInstall, Name: spec.Name, Spec: spec}
	ref, err := name.ParseReference(spec.BaseImage)
	if err != nil {
		return fmt.Errorf("install %s: %w", spec.Name, err)
	}
	if n.options.InstallKeychain != nil {
		who, err := n.options.InstallKeychain.Resolve(ref.Context())
		if err != nil {
			return fmt.Errorf("install %s: %w", spec.Name, err)
		}
		config, err := who.Authorization()
		if err != nil {
			return fmt.Errorf("install %s: %w", spec.Name, err)
		}
		o.User, o.Password = config.Username, config.Password
	}
	return n.add(o)
}

// Provision implements [cluster.Fleet].
func (n *nodes) Provision(spec node.HostSpec) error {
	return n.add(agent.NodesOrder{Do: agent.NodeProvision, Name: spec.Name, Spec: spec})
}

func (n *nodes) add(o agent.NodesOrder) error {
	n.mu.Lock()
	known := n.has[o.Name]
	n.has[o.Name] = true
	n.mu.Unlock()
	err := errors.New("machine exists")
	if !known {
		if err = n.do(o); err != nil {
			n.mu.Lock()
			delete(n.has, o.Name)
			n.mu.Unlock()
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", o.Do, o.Name, err)
	}
	return nil
}

// Remove implements [cluster.Fleet].
func (n *nodes) Remove(name string) {
	n.mu.Lock()
	delete(n.has, name)
	n.mu.Unlock()
	n.force(agent.NodesOrder{Do: agent.NodeRemove, Name: name})
}

// PowerOff implements [cluster.Fleet].
func (n *nodes) PowerOff(name string) {
	if n.Has(name) {
		n.force(agent.NodesOrder{Do: agent.NodePowerOff, Name: name})
	}
}

// PowerOn implements [cluster.Fleet].
func (n *nodes) PowerOn(name string) {
	if n.Has(name) {
		n.force(agent.NodesOrder{Do: agent.NodePowerOn, Name: name})
	}
}

// WriteFile implements [cluster.Fleet].
func (n *nodes) WriteFile(machine, path, content string) error {
	return n.file(agent.NodesOrder{Do: agent.NodeWrite, Name: machine, Path: path, Content: content})
}

// RestoreFile implements [cluster.Fleet].
func (n *nodes) RestoreFile(machine, path string) error {
	return n.file(agent.NodesOrder{Do: agent.NodeRestore, Name: machine, Path: path})
}

func (n *nodes) file(o agent.NodesOrder) error {
	if !n.Has(o.Name) {
		return fmt.Errorf("there is no machine %s", o.Name)
	}
	n.force(o)
	return nil
}

// Names implements [cluster.Fleet].
func (n *nodes) Names() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.has))
}

// Has implements [cluster.Fleet].
func (n *nodes) Has(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.has[name]
}

// Heartbeat implements [cluster.Fleet]. Only the model of kube's controllers asks, which a real cluster doesn't need.
func (n *nodes) Heartbeat(string) (last time.Time, alive bool) { return time.Time{}, false }

// Components implements [cluster.Fleet].
func (n *nodes) Components(o node.ComponentOptions) []component.Component {
	return new(node.Fleet).Components(o)
}

// OnNode runs a command on a machine of a cluster, in the pod of the machines' agent.
func OnNode(ctx context.Context, config *rest.Config, command agent.NodesCommand) (o agent.NodesOutput, err error) {
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return o, err
	}
	pods, err := api.CoreV1().Pods(AgentsNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + nodesName})
	if err != nil {
		return o, fmt.Errorf("find the agent of the nodes: %w", err)
	}
	pods.Items = slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool {
		return p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodRunning
	})
	if len(pods.Items) == 0 {
		return o, errors.New("the cluster has no nodes: no scenario runs on it, and none has left any")
	}
	pod := &pods.Items[0]
	gift, err := api.CoreV1().Secrets(AgentsNamespace).Get(ctx, pod.Labels[incarnationLabel], metav1.GetOptions{})
	if err != nil {
		return o, fmt.Errorf("find the agent of the nodes: %w", err)
	}
	world, err := url.Parse(string(gift.Data[agent.WorldFile]))
	if err != nil {
		return o, errors.New("find the agent of the nodes: it was given no address") // which has a token
	}
	asker, err := podAsker(config, "pods", AgentsNamespace, pod.Name, agent.At(world).Token)
	if err != nil {
		return o, err
	}
	err = asker.Ask(ctx, agent.NodesRunPath, command, &o)
	return o, err
}
