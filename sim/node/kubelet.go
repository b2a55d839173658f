package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/history"
)

// podGrace is how long a container takes to stop, where its grace period isn't shorter.
const podGrace = 2 * time.Second

// kubelet is the kubelets of all machines. It has no memory: what containers run is a fact about the machine.
type kubelet struct {
	fleet *Fleet
	env   component.Env
}

type podKey = types.NamespacedName

// pod is what a machine's container runtime knows of a pod.
type pod struct {
	uid      types.UID
	startAt  time.Time // when the containers are up
	stopAt   time.Time // when they are gone, after a deletion; zero before
	started  bool      // Running was posted
	boot     int       // the boot in which the containers were started
	restarts int32
}

func (k *kubelet) Reconcile(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	if r.Namespace != "" {
		return k.pod(ctx, r.NamespacedName)
	}
	h := k.fleet.Host(r.Name)
	if h == nil {
		return reconcile.Result{}, nil
	}
	now := k.env.Clock.Now()
	l := h.look(now)
	var node corev1.Node
	err := k.env.Client.Get(ctx, r.NamespacedName, &node)
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("get node %s: %w", r.Name, err)
	}
	known := err == nil
	switch {
	case l.power != up || now.Before(l.readyAt):
		return k.silent(ctx, h, l, &node, known, now)
	case known:
		return k.post(ctx, h, l, &node, now)
	case l.joined == l.boots: // registered at the start of the kubelet; a deleted Node comes back with the next one
		return reconcile.Result{}, nil
	}
	err = k.env.Live.Get(ctx, r.NamespacedName, &node)
	switch {
	case err == nil:
		return k.post(ctx, h, l, &node, now)
	case !apierrors.IsNotFound(err):
		return reconcile.Result{}, fmt.Errorf("get node %s: %w", r.Name, err)
	}
	fresh := h.Node()
	if err := k.env.Client.Create(ctx, fresh); err != nil {
		return reconcile.Result{}, fmt.Errorf("register node %s: %w", r.Name, err)
	}
	return k.post(ctx, h, l, fresh, now)
}

// silent is a machine whose kubelet doesn't run: after the grace period it is reported so.
func (k *kubelet) silent(ctx context.Context, h *Host, l look, node *corev1.Node, known bool, now time.Time) (reconcile.Result, error) {
	wait := h.next(now, l.readyAt)
	grace := k.fleet.options.MonitorGrace
	if !known || grace < 0 || l.boots == 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	if left := l.silentSince.Add(grace).Sub(now); left > 0 && l.power != up {
		if wait == 0 {
			return reconcile.Result{RequeueAfter: left}, nil
		}
		return reconcile.Result{RequeueAfter: min(wait, left)}, nil
	}
	if l.power == up || readyStatus(node) == corev1.ConditionUnknown {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	before := node.DeepCopy()
	for i := range node.Status.Conditions {
		c := &node.Status.Conditions[i]
		c.Status, c.LastTransitionTime = corev1.ConditionUnknown, metav1.NewTime(now)
		c.Reason, c.Message = "NodeStatusUnknown", "Kubelet stopped posting node status."
	}
	if err := k.env.Client.Status().Patch(ctx, node, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("report node %s as unknown: %w", h.spec.Name, err)
	}
	return reconcile.Result{RequeueAfter: wait}, nil
}

// post is a running kubelet: it posts Ready once a boot, and again when somebody else said otherwise, and starts the
// pods that a reboot ended.
func (k *kubelet) post(ctx context.Context, h *Host, l look, node *corev1.Node, now time.Time) (reconcile.Result, error) {
	if readyStatus(node) != corev1.ConditionTrue || node.Status.NodeInfo.BootID != l.bootID {
		before := node.DeepCopy()
		h.nodeStatus(&node.Status, now)
		if err := k.env.Client.Status().Patch(ctx, node, client.MergeFrom(before)); err != nil {
			return reconcile.Result{}, fmt.Errorf("post status of node %s: %w", h.spec.Name, err)
		}
	}
	h.happen(func(h *Host) (record history.Node) {
		h.joined = h.boots
		if h.readyBoot != h.boots {
			h.readyBoot = h.boots
			record = h.booted()
			record.Event = "ready"
		}
		return record
	})
	for _, key := range h.podsOfOlderBoot() {
		if err := k.restart(ctx, h, key, now); err != nil {
			return reconcile.Result{}, err
		}
	}
	if node.Annotations[layering.PostConfigAction] == layering.Rebooting && l.rebootFrom == l.boots {
		return reconcile.Result{RequeueAfter: time.Second}, nil // the reboot is about to begin
	}
	return reconcile.Result{}, nil
}

// podsOfOlderBoot lists the pods whose containers the last reboot ended.
func (h *Host) podsOfOlderBoot() []podKey {
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	var keys []podKey
	for key, p := range h.pods {
		if p.started && p.boot != h.boots {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b podKey) int { return strings.Compare(a.String(), b.String()) })
	return keys
}

// restart starts the containers of a pod anew after a reboot.
func (k *kubelet) restart(ctx context.Context, h *Host, key podKey, now time.Time) error {
	var object corev1.Pod
	err := k.env.Live.Get(ctx, key, &object)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("get pod %s: %w", key, err)
	}
	p := h.podState(key)
	if err != nil || object.UID != p.uid {
		h.change(func(h *Host) { delete(h.pods, key) })
		return nil
	}
	if object.DeletionTimestamp == nil && !ended(&object) {
		p.restarts++
		if err := k.running(ctx, h, &object, p.restarts, now); err != nil {
			return err
		}
	}
	h.change(func(h *Host) {
		if q := h.pods[key]; q != nil {
			q.boot, q.restarts = h.boots, p.restarts
		}
	})
	return nil
}

func (h *Host) podState(key podKey) pod {
	h.fleet.mu.Lock()
	defer h.fleet.mu.Unlock()
	if p := h.pods[key]; p != nil {
		return *p
	}
	return pod{}
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// pod runs one pod on the machine that it is bound to.
func (k *kubelet) pod(ctx context.Context, key podKey) (reconcile.Result, error) {
	var object corev1.Pod
	if err := k.env.Client.Get(ctx, key, &object); err != nil {
		if !apierrors.IsNotFound(err) {
			return reconcile.Result{}, fmt.Errorf("get pod %s: %w", key, err)
		}
		return reconcile.Result{}, nil // its containers are forgotten when their machine looks at them next
	}
	h := k.fleet.Host(object.Spec.NodeName)
	if h == nil || builds(&object) {
		return reconcile.Result{}, nil
	}
	now := k.env.Clock.Now()
	if !h.kubelet(now) {
		l := h.look(now)
		if l.power == off {
			return reconcile.Result{}, nil
		}
		return reconcile.Result{RequeueAfter: max(h.next(now, l.readyAt), time.Second)}, nil
	}
	p := h.podState(key)
	if p.uid != object.UID {
		p = pod{uid: object.UID, startAt: now.Add(k.fleet.options.PodStart)}
	}
	p.started = p.started || object.Status.Phase == corev1.PodRunning
	p.boot = h.look(now).boots
	if object.DeletionTimestamp != nil {
		return k.stop(ctx, h, key, &object, p, now)
	}
	h.change(func(h *Host) { h.pods[key] = &p })
	switch {
	case p.started || ended(&object):
		return reconcile.Result{}, nil
	case now.Before(p.startAt):
		return reconcile.Result{RequeueAfter: p.startAt.Sub(now)}, nil
	}
	if err := k.running(ctx, h, &object, p.restarts, now); err != nil {
		return reconcile.Result{}, err
	}
	h.change(func(*Host) { p.started = true })
	return reconcile.Result{}, nil
}

// stop ends a deleted pod's containers and then removes the pod.
func (k *kubelet) stop(ctx context.Context, h *Host, key podKey, object *corev1.Pod, p pod, now time.Time) (reconcile.Result, error) {
	if p.stopAt.IsZero() {
		grace := podGrace
		if s := object.DeletionGracePeriodSeconds; s != nil {
			grace = min(grace, time.Duration(*s)*time.Second)
		}
		if ended(object) || !p.started {
			grace = 0
		}
		p.stopAt = now.Add(grace)
		h.change(func(h *Host) { h.pods[key] = &p })
	}
	if now.Before(p.stopAt) {
		return reconcile.Result{RequeueAfter: p.stopAt.Sub(now)}, nil
	}
	err := k.env.Client.Delete(ctx, object, client.GracePeriodSeconds(0), client.Preconditions{UID: &p.uid})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return reconcile.Result{}, fmt.Errorf("remove pod %s: %w", key, err)
	}
	h.change(func(h *Host) { delete(h.pods, key) })
	return reconcile.Result{}, nil
}

// running posts that a pod's containers run.
func (k *kubelet) running(ctx context.Context, h *Host, object *corev1.Pod, restarts int32, now time.Time) error {
	before := object.DeepCopy()
	at := metav1.NewTime(now)
	s := &object.Status
	s.Phase, s.HostIP, s.PodIP = corev1.PodRunning, h.ip(), cmp.Or(s.PodIP, h.podIP(object.UID))
	s.HostIPs, s.PodIPs = []corev1.HostIP{{IP: s.HostIP}}, []corev1.PodIP{{IP: s.PodIP}}
	if s.StartTime == nil {
		s.StartTime = &at
	}
	for _, kind := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized,
		corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled} {
		setPodCondition(s, kind, at)
	}
	s.ContainerStatuses = nil
	for _, c := range object.Spec.Containers {
		started := true
		s.ContainerStatuses = append(s.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, ImageID: c.Image, Ready: true, Started: &started, RestartCount: restarts,
			ContainerID: "cri-o://" + strings.ReplaceAll(h.fleet.id("container", object.UID, c.Name, restarts), "-", ""),
			State:       corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at}},
		})
	}
	if err := k.env.Client.Status().Patch(ctx, object, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("post status of pod %s/%s: %w", object.Namespace, object.Name, err)
	}
	return nil
}

func setPodCondition(s *corev1.PodStatus, kind corev1.PodConditionType, at metav1.Time) {
	for i := range s.Conditions {
		if c := &s.Conditions[i]; c.Type == kind {
			if c.Status != corev1.ConditionTrue {
				c.LastTransitionTime = at
			}
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, "", ""
			return
		}
	}
	s.Conditions = append(s.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: at})
}

func (h *Host) ip() string { return fmt.Sprintf("10.0.%d.%d", 128+h.index/250, h.index%250+4) }

func (h *Host) podIP(uid types.UID) string {
	var sum uint32
	for _, b := range []byte(uid) {
		sum = sum*31 + uint32(b)
	}
	return fmt.Sprintf("10.%d.%d.%d", 128+h.index/256%64, h.index%256, sum%250+4)
}

// Node returns the Node that the machine's kubelet registers. A machine that was installed converged has the annotations
// of a node at rest; a new one gets them from its machine-config-daemon.
func (h *Host) Node() *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: h.spec.Name, Labels: map[string]string{
		corev1.LabelHostname: h.spec.Name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
		"node.openshift.io/os_id": "rhel",
	}}}
	if h.spec.Zone != "" {
		node.Labels[corev1.LabelTopologyZone] = h.spec.Zone
	}
	for _, role := range h.spec.Roles {
		node.Labels[layering.NodeRolePrefix+role] = ""
		if role == layering.MasterPool {
			node.Labels[layering.NodeRolePrefix+"control-plane"] = ""
			node.Spec.Taints = []corev1.Taint{{Key: layering.NodeRolePrefix + role, Effect: corev1.TaintEffectNoSchedule}}
		}
	}
	maps.Copy(node.Labels, h.spec.Labels)
	// Every kubelet writes it; upstream's node controller panics at a Node without any annotation.
	node.Annotations = map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
	l := h.look(h.fleet.options.Clock.Now())
	if l.installed && l.config != "" && l.boots == 1 {
		maps.Copy(node.Annotations, map[string]string{
			layering.CurrentConfig: l.config, layering.DesiredConfig: l.config,
			layering.State: layering.StateDone, layering.Reason: "",
		})
	}
	h.nodeStatus(&node.Status, h.fleet.options.Clock.Now())
	return node
}

// nodeStatus fills in what a healthy kubelet posts.
func (h *Host) nodeStatus(s *corev1.NodeStatus, now time.Time) {
	l := h.look(now)
	kernel := "5.14.0-427.50.1.el9_4.x86_64"
	for _, p := range l.booted.Packages {
		if p.Name == "kernel" {
			kernel = p.EVR + "." + p.Arch
		}
	}
	machine := strings.ReplaceAll(h.fleet.id("machine", h.spec.Name), "-", "")
	s.NodeInfo = corev1.NodeSystemInfo{
		MachineID: machine, SystemUUID: h.fleet.id("system", h.spec.Name), BootID: l.bootID, KernelVersion: kernel,
		OSImage:                 strings.TrimSpace("Red Hat Enterprise Linux CoreOS " + l.booted.Version),
		ContainerRuntimeVersion: "cri-o://1.31.5-2.rhaos4.18.el9", KubeletVersion: h.spec.KubeletVersion,
		OperatingSystem: "linux", Architecture: "amd64",
	}
	s.Capacity = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("16Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("120Gi"), corev1.ResourcePods: resource.MustParse("250"),
	}
	s.Allocatable = s.Capacity.DeepCopy()
	s.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: h.ip()},
		{Type: corev1.NodeHostName, Address: h.spec.Name}}
	set := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string) {
		c := corev1.NodeCondition{Type: kind, Status: status, Reason: reason, Message: message,
			LastHeartbeatTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now)}
		for i := range s.Conditions {
			if s.Conditions[i].Type == kind {
				if s.Conditions[i].Status == status {
					c.LastTransitionTime = s.Conditions[i].LastTransitionTime
				}
				s.Conditions[i] = c
				return
			}
		}
		s.Conditions = append(s.Conditions, c)
	}
	set(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory", "kubelet has sufficient memory available")
	set(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure", "kubelet has no disk pressure")
	set(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID", "kubelet has sufficient PID available")
	set(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "kubelet is posting ready status")
}
