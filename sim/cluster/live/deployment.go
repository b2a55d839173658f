package live

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/layersim/layersim/sim/cluster/live/agent"
	"github.com/layersim/layersim/sim/cluster/proxy"
)

// Deployment says how processes are run in the cluster, by their manifests of package fixtures, each replica as a
// Deployment of its own: so that each is known to the proxy, which pods reach at Options.Address.
type Deployment struct {
	// Image holds the programs in /usr/bin. It is on the nodes already.
	Image string
	// Node is a label that nodes with a kubelet have, with the value "true".
	Node string
}

const (
	// incarnationLabel tells the pods of one life of a replica, by the name of its Secret; replicaLabel those of a replica.
	incarnationLabel = "layersim.io/incarnation"
	replicaLabel     = "layersim.io/replica"
	// deployLimit is how long it may take until a pod is ready.
	deployLimit = 2 * time.Minute
	// lastLimit is how long a request of layersim's may take that has to be made even when the run was interrupted.
	lastLimit = 30 * time.Second
)

// outfit is what a process runs in that has no manifest in package fixtures.
type outfit struct {
	Deployment
	manifest *appsv1.Deployment
	given    map[string][]byte                        // more files of the folder agent.Given
	next     func(context.Context) (time.Time, error) // see incarnation
}

// deployed is one life of a replica in the cluster: a pod, or several one after the other if something removes them.
type deployed struct {
	process  *process
	life     *incarnation
	name     string // of the Deployment
	id       string // of this life
	gift     string // the Secret of this life, a name that no other run has
	manifest *appsv1.Deployment
	pods     corev1client.PodInterface
	stop     context.CancelFunc // ends the watching

	mu       sync.Mutex // guards what follows
	there    map[string]bool
	stopping bool
	settled  bool // ready was told
	streams  map[string]chan struct{}
	end      sync.Once
}

// deploy runs a replica in the cluster. It returns when the pod is on its way; ready tells when it runs.
func (p *process) deploy(caller *proxy.Caller) (*incarnation, error) {
	e := p.engine
	if e.gate == nil {
		return nil, errors.New("there is no registry")
	}
	address, err := e.Server.reachable(e.Address)
	if err != nil {
		return nil, err
	}
	core, err := corev1client.NewForConfig(e.Server.config)
	if err != nil {
		return nil, err
	}
	p.serial++
	d := &deployed{process: p, name: p.freeName(), id: fmt.Sprintf("%s-%d", p.name, p.serial), manifest: &appsv1.Deployment{},
		there: map[string]bool{}, streams: map[string]chan struct{}{}}
	outfit, outfitted := e.outfits[p.name]
	if outfitted {
		outfit.manifest.DeepCopyInto(d.manifest)
	} else if err := runtime.DefaultUnstructuredConverter.FromUnstructured(e.Server.manifests[p.name].Object, d.manifest); err != nil {
		return nil, fmt.Errorf("read deployment %s: %w", p.name, err)
	}
	d.pods = core.Pods(d.manifest.Namespace)
	d.fit(*p.deployment)
	account := &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: metav1.ObjectMeta{
		Namespace: d.manifest.Namespace, Name: d.manifest.Spec.Template.Spec.ServiceAccountName}}
	// What a pod is given never changes: the next life has another.
	gift := &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{
		Namespace: d.manifest.Namespace, Name: d.gift, Labels: d.manifest.Labels}, Immutable: ptr.To(true),
		Data: map[string][]byte{"kubeconfig": caller.KubeconfigAt(address), "registry.crt": e.gate.authority}}
	maps.Copy(gift.Data, outfit.given)
	for _, o := range []any{account, gift} {
		if err := d.apply(o); err != nil {
			return nil, err
		}
	}
	var watching context.Context
	watching, d.stop = context.WithCancel(e.ctx)
	i := &incarnation{caller: caller, ended: make(chan struct{}), ready: make(chan error, 1), replica: d.name, cancel: d.cancel, kill: d.kill,
		next: d.next}
	if outfitted {
		i.next = outfit.next
	}
	d.life = i
	e.watches.Go(func() { d.watch(watching, core) })
	if err := d.scale(1); err != nil {
		d.stop()
		return nil, err
	}
	return i, nil
}

// freeName is the name of a Deployment that no replica has. The caller holds the lock.
func (p *process) freeName() string {
	for n := 1; ; n++ {
		name := p.name
		if n > 1 {
			name = fmt.Sprintf("%s-%d", p.name, n)
		}
		if !slices.ContainsFunc(p.running, func(i *incarnation) bool { return i.replica == name }) {
			return name
		}
	}
}

// fit puts into the manifest what is of this life.
func (d *deployed) fit(o Deployment) {
	e := d.process.engine
	d.manifest.Name = d.name
	// The kubelet never looks at an immutable Secret again while a pod has it: a pod of an earlier run that is just ending would
	// have the next one get what it was given itself.
	d.gift = d.id + "-" + strings.ToLower(rand.Text())[:8]
	template := &d.manifest.Spec.Template
	d.manifest.Spec.Selector.MatchLabels[replicaLabel] = d.name
	template.Labels[replicaLabel], template.Labels[incarnationLabel] = d.name, d.gift
	template.Spec.NodeSelector = map[string]string{o.Node: "true"}
	template.Spec.Volumes = append(template.Spec.Volumes, corev1.Volume{Name: "layersim", VolumeSource: corev1.VolumeSource{
		Secret: &corev1.SecretVolumeSource{SecretName: d.gift, DefaultMode: ptr.To[int32](0o444)}}})
	c := &template.Spec.Containers[0]
	c.Image, c.ImagePullPolicy = o.Image, corev1.PullNever
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "layersim", MountPath: agent.Given, ReadOnly: true})
	c.Env = append(c.Env,
		corev1.EnvVar{Name: "KUBECONFIG", Value: agent.Given + "/kubeconfig"},
		corev1.EnvVar{Name: "HTTPS_PROXY", Value: e.gate.proxyURL(d.process.name).String()},
		corev1.EnvVar{Name: "NO_PROXY", Value: "127.0.0.1,localhost"},
		corev1.EnvVar{Name: "SSL_CERT_FILE", Value: agent.Given + "/registry.crt"})
}

func (d *deployed) apply(o any) error {
	ctx, done := d.last()
	defer done()
	return d.process.engine.Server.applyTyped(ctx, o)
}

// last is a context for what has to happen even when the run was interrupted.
func (d *deployed) last() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(d.process.engine.ctx), lastLimit)
}

// fail breaks the cluster, unless the run is over anyway.
func (d *deployed) fail(err error) {
	if err != nil && d.process.engine.ctx.Err() == nil {
		d.process.engine.cancel(err)
	}
}

func (d *deployed) scale(replicas int32) error {
	d.manifest.Spec.Replicas = &replicas
	return d.apply(d.manifest)
}

// cancel asks the pod to end.
func (d *deployed) cancel() {
	if d.process.engine.ctx.Err() != nil {
		d.kill() // the run was interrupted: nobody watches the end
		return
	}
	d.leave()
}

func (d *deployed) leave() {
	d.mu.Lock()
	d.stopping = true
	d.mu.Unlock()
	d.fail(d.scale(0))
}

// kill ends the pod at once.
func (d *deployed) kill() {
	d.leave()
	ctx, done := d.last()
	defer done()
	err := d.pods.DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)},
		metav1.ListOptions{LabelSelector: incarnationLabel + "=" + d.gift})
	if err != nil {
		d.fail(fmt.Errorf("delete pods of %s: %w", d.id, err))
	}
	d.over()
}

// over says that nothing of this life is left.
func (d *deployed) over() {
	d.end.Do(func() {
		d.stop()
		close(d.life.ended)
	})
}

// tell says whether the replica runs, the first time.
func (d *deployed) tell(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.settled {
		d.settled = true
		d.life.ready <- err
	}
}

// watch follows the pods of this life until it is over.
func (d *deployed) watch(ctx context.Context, core corev1client.CoreV1Interface) {
	followPods(ctx, core, d.manifest.Namespace, incarnationLabel+"="+d.gift, func(pod *corev1.Pod) { d.saw(ctx, pod) }, d.gone)
}

// followPods tells of the pods with some labels until the context ends: as they are, and of each whose end was seen or missed
// how it was last.
func followPods(ctx context.Context, core corev1client.CoreV1Interface, namespace, labels string, saw, gone func(*corev1.Pod)) {
	tell := func(to func(*corev1.Pod), object any) {
		if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = last.Obj
		}
		if pod, ok := object.(*corev1.Pod); ok {
			to(pod)
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewFilteredListWatchFromClient(core.RESTClient(), "pods", namespace,
			func(o *metav1.ListOptions) { o.LabelSelector = labels }),
		ObjectType: &corev1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(pod any) { tell(saw, pod) },
			UpdateFunc: func(_, pod any) { tell(saw, pod) },
			DeleteFunc: func(pod any) { tell(gone, pod) },
		},
	})
	informer.RunWithContext(ctx)
}

func (d *deployed) gone(pod *corev1.Pod) {
	d.mu.Lock()
	delete(d.there, pod.Name)
	over := d.stopping && len(d.there) == 0
	d.mu.Unlock()
	if over {
		d.over()
	}
}

// hopeless are the reasons for which a container waits that will not pass.
var hopeless = []string{"ErrImageNeverPull", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"}

// saw takes notice of a pod.
func (d *deployed) saw(ctx context.Context, pod *corev1.Pod) {
	d.mu.Lock()
	d.there[pod.Name] = true
	stopping := d.stopping || pod.DeletionTimestamp != nil
	d.mu.Unlock()
	if len(pod.Status.ContainerStatuses) == 0 {
		return
	}
	s := &pod.Status.ContainerStatuses[0]
	if s.State.Running != nil || s.State.Terminated != nil {
		d.read(ctx, pod.Name, s.ContainerID)
	}
	ended := cmp.Or(s.State.Terminated, s.LastTerminationState.Terminated)
	switch {
	case stopping:
	case s.State.Waiting != nil && slices.Contains(hopeless, s.State.Waiting.Reason):
		d.tell(fmt.Errorf("pod %s: %s: %s", pod.Name, s.State.Waiting.Reason, s.State.Waiting.Message))
	case ended != nil && d.process.unexpected(d.life):
		d.read(ctx, pod.Name, ended.ContainerID)
		d.life.err = fmt.Errorf("it ended by itself: exit status %d\n%s", ended.ExitCode, d.lastWords(ended.ContainerID))
		d.process.exited(d.life)
		d.tell(nil) // it is started again, as all programs are
	case s.Ready:
		d.tell(nil)
	}
}

func (d *deployed) log() string { return filepath.Join(d.process.engine.Logs, d.id+".log") }

// read follows a container's log into a file, unless it does already.
func (d *deployed) read(ctx context.Context, pod, container string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if container == "" || d.streams[container] != nil {
		return
	}
	done := make(chan struct{})
	d.streams[container] = done
	// Not before this life is over, but until the log ends: that of the run.
	d.process.engine.watches.Go(func() {
		defer close(done)
		if err := d.copy(d.process.engine.ctx, pod); err != nil && ctx.Err() == nil {
			d.process.record("log", fmt.Sprintf("read the log of pod %s: %v", pod, err))
		}
	})
}

func (d *deployed) copy(ctx context.Context, pod string) error {
	f, err := os.OpenFile(d.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	stream, err := d.pods.GetLogs(pod, &corev1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	_, err = io.Copy(f, stream)
	return err
}

// lastWords is the end of the log, once all of it has come.
func (d *deployed) lastWords(container string) string {
	d.mu.Lock()
	done := d.streams[container]
	d.mu.Unlock()
	if done != nil {
		select {
		case <-done:
		case <-time.After(patience):
		}
	}
	return strings.TrimSpace(tail(d.log()))
}

// reachable lets pods reach the proxy, and returns where.
func (s *Server) reachable(host string) (string, error) {
	if s.remote != "" {
		return s.remote, nil
	}
	if host == "" {
		return "", errors.New("pods can't reach this process: there is no address for them")
	}
	var err error
	if s.remote, err = s.proxy.Listen(host); err != nil {
		return "", fmt.Errorf("open the proxy for pods: %w", err)
	}
	return s.remote, nil
}
