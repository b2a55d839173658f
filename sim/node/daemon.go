package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/history"
)

const (
	maxReason      = 2000             // characters of the annotation reason
	retryMin       = time.Second      // first wait after a failure, doubled by each further one
	retryMax       = time.Minute      // longest wait after a failure
	rebaseWait     = 10 * time.Second // after the first failed attempt to rebase, doubled by each further one
	rebaseAttempts = 3
	firstbootRetry = time.Minute
)

// daemon is the machine-config-daemons of all nodes. What a daemon must not lose is on its machine's disk.
type daemon struct {
	fleet    *Fleet
	env      component.Env
	sessions map[string]*session
}

// session is the memory of one daemon process.
type session struct {
	boot      int
	target    *layering.Target // the update that was begun
	waiting   string           // the drain request that this process made
	since     time.Time        // when it did
	attempts  int              // failed attempts to rebase
	nextTry   time.Time        // of the rebase
	lastErr   error            // of the rebase
	failures  int              // failed syncs in a row
	notBefore time.Time        // the next sync
	told      string           // the last phase told to the MachineConfigNode
	drifted   bool             // drift was reported
}

// visit is one sync of one node.
type visit struct {
	h    *Host
	look look
	node *corev1.Node
	s    *session
	now  time.Time
}

// failure is what makes a node Degraded, in contrast to a request that failed and is simply made again.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

func failed(format string, args ...any) error { return failure{fmt.Errorf(format, args...)} }

func (d *daemon) Reconcile(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	h := d.fleet.Host(r.Name)
	if h == nil {
		delete(d.sessions, r.Name)
		return reconcile.Result{}, nil
	}
	v := &visit{h: h, now: d.env.Clock.Now(), node: &corev1.Node{}}
	v.look = h.look(v.now)
	if v.look.power == firstboot {
		return d.firstboot(ctx, v)
	}
	if v.look.power != up || v.now.Before(v.look.daemonAt) {
		return reconcile.Result{RequeueAfter: h.next(v.now, v.look.daemonAt)}, nil
	}
	if err := d.env.Live.Get(ctx, r.NamespacedName, v.node); err != nil {
		// The kubelet will register the Node, which leads here again.
		return reconcile.Result{}, wrap(client.IgnoreNotFound(err), "get node %s", r.Name)
	}
	v.s = d.sessions[r.Name]
	if v.s == nil || v.s.boot != v.look.boots {
		v.s = &session{boot: v.look.boots}
		d.sessions[r.Name] = v.s
	}
	if wait := v.s.notBefore.Sub(v.now); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	result, err := d.sync(ctx, v)
	if errors.Is(err, ErrHang) {
		return reconcile.Result{RequeueAfter: hang}, nil
	}
	if f := (failure{}); errors.As(err, &f) {
		return d.degrade(ctx, v, f)
	}
	return result, err
}

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

// sync brings a node one step further.
func (d *daemon) sync(ctx context.Context, v *visit) (reconcile.Result, error) {
	a := v.node.Annotations
	rebootPending := v.look.rebootFrom == v.look.boots
	if a[layering.PostConfigAction] == layering.Rebooting {
		if rebootPending { // the daemon ended between the announcement and the reboot
			return d.reboot(v), nil
		}
		if err := d.tellRebooted(ctx, v); err != nil {
			return reconcile.Result{}, err
		}
		if err := d.annotate(ctx, v, map[string]any{layering.PostConfigAction: ""}); err != nil {
			return reconcile.Result{}, err
		}
	}
	if a[layering.CurrentConfig] == "" {
		if ready, err := d.bootstrap(ctx, v); err != nil || !ready {
			return reconcile.Result{RequeueAfter: 5 * time.Second}, err
		}
	}
	if err := d.load(ctx, v); err != nil {
		return reconcile.Result{}, err
	}
	if v.s.told == "" {
		if err := d.tellStarted(ctx, v); err != nil {
			return reconcile.Result{}, err
		}
	}
	if wait, waiting, err := d.handshake(v); waiting || err != nil {
		return reconcile.Result{RequeueAfter: wait}, err
	}
	have := layering.Target{Config: v.look.config, Image: v.look.image}
	switch {
	case v.s.target != nil:
		return d.update(ctx, v, *v.s.target)
	case rebootPending:
		return d.update(ctx, v, have)
	}
	want := layering.Desired(v.node)
	if want.Config == "" {
		return reconcile.Result{}, nil
	}
	if path := v.h.drift(); path != "" {
		err := failed("unexpected on-disk state validating against %s: content mismatch for file %q",
			cmp.Or(have.Image, have.Config), path)
		if !v.s.drifted {
			v.s.drifted = true
			reason := "ConfigDriftDetected"
			if want != have {
				reason = "PreflightConfigDriftCheckFailed"
			}
			d.warn(v, reason, err.Error())
		}
		return reconcile.Result{}, err
	}
	v.s.drifted = false
	if want != have {
		return d.update(ctx, v, want)
	}
	if expected := d.osImage(v.h, v.look.files, have); v.look.booted.Image != expected {
		return reconcile.Result{}, failed("unexpected on-disk state validating against %s: expected target osImageURL %q, have %q",
			cmp.Or(have.Image, have.Config), expected, v.look.booted.Image)
	}
	return d.complete(ctx, v, have)
}

// osImage is the image that a target boots.
func (d *daemon) osImage(h *Host, c *config, t layering.Target) string {
	image := t.Image
	if c != nil {
		image = cmp.Or(image, c.osImage)
	}
	return cmp.Or(image, h.spec.BaseImage)
}

// bootstrap writes the annotations of a node's first start. It reports false as long as the node's config isn't known.
func (d *daemon) bootstrap(ctx context.Context, v *visit) (bool, error) {
	name := v.look.config
	if name == "" {
		pool, err := d.pool(ctx, v.node)
		if err != nil || pool == nil {
			return false, err
		}
		// The machine config server gives a new machine what at least one node has proved.
		name = pool.Status.Configuration.Name
		if pool.Status.UpdatedMachineCount > 0 || name == "" {
			name = cmp.Or(pool.Spec.Configuration.Name, name)
		}
		if name == "" {
			return false, nil
		}
		v.h.change(func(h *Host) { h.disk.config = name })
		v.look.config = name
	}
	set := map[string]any{layering.CurrentConfig: name, layering.State: layering.StateDone, layering.Reason: ""}
	if v.node.Annotations[layering.DesiredConfig] == "" {
		set[layering.DesiredConfig] = name
	}
	if v.look.image != "" {
		set[layering.CurrentImage] = v.look.image
	} else if !v.look.bootstrap && !v.look.installed {
		set[layering.FirstPivotConfig] = name
	}
	if err := d.annotate(ctx, v, set); err != nil {
		return false, err
	}
	v.h.change(func(h *Host) { h.disk.bootstrap = true })
	return true, nil
}

// pool returns the pool that updates a node, nil where there is none.
func (d *daemon) pool(ctx context.Context, node *corev1.Node) (*mcfgv1.MachineConfigPool, error) {
	var pools mcfgv1.MachineConfigPoolList
	if err := d.env.Client.List(ctx, &pools); err != nil {
		return nil, fmt.Errorf("list machineconfigpools: %w", err)
	}
	name := layering.NewMembership(pools.Items).Primary(node)
	for i := range pools.Items {
		if pools.Items[i].Name == name {
			return &pools.Items[i], nil
		}
	}
	return nil, nil
}

// load gets the files of the config that is on disk, where this machine hasn't read them yet.
func (d *daemon) load(ctx context.Context, v *visit) error {
	if v.look.files != nil {
		return nil
	}
	c, err := d.config(ctx, v.look.config)
	if err != nil {
		if f := (failure{}); errors.As(err, &f) {
			return nil // not rendered yet, or no more: nothing to compare the disk with
		}
		return err
	}
	v.h.change(func(h *Host) { h.disk.files = c })
	v.look.files = c
	return nil
}

// config returns a rendered config.
func (d *daemon) config(ctx context.Context, name string) (*config, error) {
	var mc mcfgv1.MachineConfig
	key := types.NamespacedName{Name: name}
	err := d.env.Client.Get(ctx, key, &mc)
	if apierrors.IsNotFound(err) {
		err = d.env.Live.Get(ctx, key, &mc)
	}
	switch {
	case apierrors.IsNotFound(err):
		return nil, failed("machineconfig.machineconfiguration.openshift.io %q not found", name)
	case err != nil:
		return nil, fmt.Errorf("get machineconfig %s: %w", name, err)
	}
	c, err := d.fleet.configs.parse(&mc)
	if err != nil {
		return nil, failure{err}
	}
	return c, nil
}

// handshake says whether the drain controller has yet to acknowledge a request, and how long to wait for it.
func (d *daemon) handshake(v *visit) (wait time.Duration, waiting bool, err error) {
	a := v.node.Annotations
	desired := a[layering.DesiredDrain]
	if desired == "" || desired == a[layering.LastAppliedDrain] {
		v.s.waiting = ""
		return 0, false, nil
	}
	if v.s.waiting != desired { // asked by an earlier process, or given up: no deadline
		return 0, true, nil
	}
	limit, what, long := d.fleet.options.DrainTimeout, "drain", "1 hour"
	if desired == layering.UncordonVerb+"-"+v.look.config {
		limit, what, long = d.fleet.options.Uncordon, "uncordon", "10 minutes"
	}
	if left := v.s.since.Add(limit).Sub(v.now); left > 0 {
		return left, true, nil
	}
	if what == "drain" {
		d.warn(v, "FailedToDrain", "failed to drain node: "+v.node.Name+" after 1 hour")
	} else {
		d.warn(v, "FailedToUncordon", "failed to uncordon node: "+v.node.Name+" after 10 minutes")
	}
	return 0, true, failed("failed to %s node: %s after %s. Please see machine-config-controller logs for more information",
		what, v.node.Name, long)
}

// ask requests a drain or an uncordon.
func (d *daemon) ask(ctx context.Context, v *visit, value string, limit time.Duration) (reconcile.Result, error) {
	if err := d.annotate(ctx, v, map[string]any{layering.DesiredDrain: value}); err != nil {
		return reconcile.Result{}, err
	}
	v.s.waiting, v.s.since = value, v.now
	return reconcile.Result{RequeueAfter: limit}, nil
}

// update takes a node to a target, up to the reboot.
func (d *daemon) update(ctx context.Context, v *visit, t layering.Target) (reconcile.Result, error) {
	c, err := d.config(ctx, t.Config)
	if err != nil {
		return reconcile.Result{}, err
	}
	a := v.node.Annotations
	have := layering.Target{Config: v.look.config, Image: v.look.image}
	if v.s.target == nil {
		if state := a[layering.State]; state == layering.StateDone || state == "" {
			if err := d.annotate(ctx, v, map[string]any{layering.State: layering.StateWorking}); err != nil {
				return reconcile.Result{}, err
			}
		}
		v.s.target, v.s.attempts, v.s.nextTry = &t, 0, time.Time{}
		if err := d.tellPrepared(ctx, v, t); err != nil {
			return reconcile.Result{}, err
		}
	}
	image := d.osImage(v.h, c, t)
	if s := v.look.staged; s != nil && s.Image != image {
		v.h.change(func(h *Host) { h.staged = nil }) // rpm-ostree cleanup -p
		v.look.staged = nil
	}
	rebase := v.look.booted.Image != image
	files, system := v.look.files == nil, v.look.files == nil
	if old := v.look.files; old != nil {
		files, system = !old.sameFiles(c), old.system != c.system
	}
	reboot := rebase || system || files && !d.fleet.options.LiveFiles || v.look.rebootFrom == v.look.boots
	drain := reboot && a[layering.ControlPlaneTopo] != "SingleReplica"

	if value := layering.DrainVerb + "-" + t.Config; drain && a[layering.LastAppliedDrain] != value {
		if err := d.fleet.before(v.node.Name, "drain"); err != nil {
			return reconcile.Result{}, failed("failed to drain node: %s: %w", v.node.Name, err)
		}
		d.note(v, "Drain", "Draining node to update config.")
		return d.ask(ctx, v, value, d.fleet.options.DrainTimeout)
	}
	applied := have == t && v.look.files == c
	if !applied {
		if err := d.tellDrained(ctx, v, t, drain); err != nil {
			return reconcile.Result{}, err
		}
	}
	if rebase && v.look.staged == nil {
		if wait, done, err := d.rebase(ctx, v, image); err != nil || !done {
			return reconcile.Result{RequeueAfter: wait}, err
		}
	}
	if !applied {
		more := 0
		if rebase && t.Image == "" && have.Image != "" {
			more = d.fleet.options.RevertReboots - 1
		}
		v.h.apply(c, t.Image, reboot, more)
	}
	if err := d.tellApplied(ctx, v, t, reboot); err != nil {
		return reconcile.Result{}, err
	}
	if reboot {
		if err := d.fleet.before(v.node.Name, "reboot"); err != nil {
			return reconcile.Result{}, failed("reboot command failed, something is seriously wrong: %w", err)
		}
		d.note(v, "Reboot", "Node will reboot into "+described(t))
		if err := d.annotate(ctx, v, map[string]any{layering.PostConfigAction: layering.Rebooting}); err != nil {
			return reconcile.Result{}, err
		}
		return d.reboot(v), nil
	}
	v.s.target = nil
	v.look = v.h.look(v.now)
	return d.sync(ctx, v)
}

func described(t layering.Target) string {
	if t.Image == "" {
		return "config " + t.Config
	}
	return "image " + t.Image + " / MachineConfig " + t.Config
}

// reboot reboots; the daemon's process ends with it.
func (d *daemon) reboot(v *visit) reconcile.Result {
	delete(d.sessions, v.node.Name)
	v.h.reboot(v.now, "Node will reboot into config "+v.h.look(v.now).config)
	return reconcile.Result{RequeueAfter: v.h.next(v.now, v.now)}
}

// rebase works on getting an image staged. It reports done, or how long to wait before asking again.
func (d *daemon) rebase(ctx context.Context, v *visit, image string) (wait time.Duration, done bool, err error) {
	s := v.s
	if left := s.nextTry.Sub(v.now); left > 0 {
		return left, false, nil
	}
	if s.attempts >= rebaseAttempts {
		return 0, false, failed("failed to update OS to %s after retries: %w", image, s.lastErr)
	}
	t := v.look.transaction
	if t == nil || t.image != image {
		d.note(v, "OSUpdateStarted", "Changing OS image to "+image)
		if t, err = d.pull(ctx, v, image); err != nil {
			if f := (failure{}); errors.As(err, &f) && !errors.Is(err, ErrHang) {
				return d.attemptFailed(v, image, f.error)
			}
			return 0, false, err
		}
	}
	if left := t.done.Sub(v.now); left > 0 {
		return left, false, nil
	}
	if err := d.stage(v.h); errors.Is(err, ErrHang) {
		return 0, false, err
	} else if err != nil {
		return d.attemptFailed(v, image, fmt.Errorf("error: %w", err))
	}
	s.attempts = 0
	d.note(v, "OSUpdateStaged", "Changes to OS staged")
	return 0, true, nil
}

// attemptFailed notes a failed attempt. A daemon that is Degraded gives up at once, to try all again soon.
func (d *daemon) attemptFailed(v *visit, image string, err error) (time.Duration, bool, error) {
	err = fmt.Errorf("error running rpm-ostree rebase --experimental ostree-unverified-registry:%s: error: %w: exit status 1", image, err)
	if v.node.Annotations[layering.State] == layering.StateDegraded {
		return 0, false, failed("failed to update OS to %s after retries: %w", image, err)
	}
	wait := rebaseWait << v.s.attempts
	v.s.attempts++
	v.s.lastErr, v.s.nextTry = err, v.now.Add(wait)
	return wait, false, nil
}

// pull pulls an image and starts the transaction that writes it. A failure is one of the pull.
func (d *daemon) pull(ctx context.Context, v *visit, image string) (*transaction, error) {
	if err := d.fleet.before(v.h.spec.Name, "pull"); err != nil {
		return nil, failed("remote error: %w", err)
	}
	keys, err := pullSecret(ctx, d.env.Live, v.h)
	if err != nil {
		return nil, err
	}
	h := v.h
	info, err := d.fleet.images.pull(d.fleet.options.Transport("node/"+h.spec.Name), keys, image, h.layers)
	if err != nil {
		return nil, failed("remote error: %w", err)
	}
	o := &d.fleet.options
	took := o.RebaseFixed + time.Duration(float64(info.size)/float64(o.Bandwidth)*float64(time.Second))
	t := &transaction{image: image, info: info, done: v.now.Add(took)}
	record := history.Node{Event: "rebase", Message: fmt.Sprintf("%d bytes, %s", info.size, took.Round(time.Second))}
	deployment(image, info).describe(&record)
	h.happen(func(h *Host) history.Node {
		h.transaction = t
		for _, layer := range info.layers {
			h.layers[layer] = true
		}
		record.Boot, record.BootID = h.boots, h.bootID
		return record
	})
	return t, nil
}

// stage ends the transaction: its image becomes the staged deployment.
func (d *daemon) stage(h *Host) error {
	err := d.fleet.before(h.spec.Name, "stage")
	h.happen(func(h *Host) (record history.Node) {
		t := h.transaction
		if errors.Is(err, ErrHang) {
			return record
		}
		h.transaction = nil
		if t == nil || err != nil {
			return record
		}
		h.staged = deployment(t.image, t.info)
		record = history.Node{Event: "stage", Boot: h.boots, BootID: h.bootID}
		h.staged.describe(&record)
		return record
	})
	return err
}

// complete ends an update: uncordon, then Done.
func (d *daemon) complete(ctx context.Context, v *visit, have layering.Target) (reconcile.Result, error) {
	a := v.node.Annotations
	empty, present := a[layering.DesiredImage]
	emptyKey := present && empty == ""
	if a[layering.State] == layering.StateDone && layering.Current(v.node) == have && a[layering.Reason] == "" && !emptyKey {
		v.s.failures = 0
		return reconcile.Result{}, nil
	}
	if value := layering.UncordonVerb + "-" + have.Config; a[layering.DesiredDrain] != value {
		if err := d.fleet.before(v.node.Name, "uncordon"); err != nil {
			return reconcile.Result{}, failed("failed to uncordon node: %s: %w", v.node.Name, err)
		}
		return d.ask(ctx, v, value, d.fleet.options.Uncordon)
	}
	if err := d.fleet.before(v.node.Name, "done"); err != nil {
		return reconcile.Result{}, failed("error setting node's state to Done: %w", err)
	}
	set := map[string]any{layering.State: layering.StateDone, layering.Reason: "", layering.CurrentConfig: have.Config}
	switch {
	case have.Image != "":
		set[layering.CurrentImage] = have.Image
	default:
		if _, ok := a[layering.CurrentImage]; ok {
			set[layering.CurrentImage] = nil
		}
		if emptyKey {
			set[layering.DesiredImage] = nil
		}
	}
	d.note(v, "Uncordon", "Update completed for config "+have.Config+" and node has been uncordoned")
	if err := d.annotate(ctx, v, set); err != nil {
		return reconcile.Result{}, err
	}
	d.note(v, "NodeDone", "Setting node "+v.node.Name+", currentConfig "+have.Config+" to Done")
	if err := d.tellDone(ctx, v, have); err != nil {
		return reconcile.Result{}, err
	}
	v.s.failures = 0
	return reconcile.Result{}, nil
}

// degrade tells of a failure and sets when to try again.
func (d *daemon) degrade(ctx context.Context, v *visit, f failure) (reconcile.Result, error) {
	reason := f.Error()
	if len(reason) > maxReason {
		reason = reason[:maxReason]
	}
	a := v.node.Annotations
	if a[layering.State] != layering.StateDegraded || a[layering.Reason] != reason {
		if err := d.annotate(ctx, v, map[string]any{layering.State: layering.StateDegraded, layering.Reason: reason}); err != nil {
			return reconcile.Result{}, err
		}
		if err := d.tellDegraded(ctx, v, reason); err != nil {
			return reconcile.Result{}, err
		}
	}
	s := v.s
	wait := min(retryMin<<min(s.failures, 10), retryMax)
	s.failures++
	s.notBefore = v.now.Add(wait)
	s.target, s.waiting, s.attempts, s.nextTry = nil, "", 0, time.Time{}
	return reconcile.Result{RequeueAfter: wait}, nil
}

// firstboot is the service of the same name on a machine that runs its boot image: it pivots to the base image.
func (d *daemon) firstboot(ctx context.Context, v *visit) (reconcile.Result, error) {
	h := v.h
	if left := v.look.due.Sub(v.now); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	retry := func() (reconcile.Result, error) {
		h.change(func(h *Host) { h.due = v.now.Add(firstbootRetry) })
		return reconcile.Result{RequeueAfter: firstbootRetry}, nil
	}
	t := v.look.transaction
	if v.look.staged != nil { // the service ended between that and the reboot
		h.Reboot(firstbootDone + h.spec.Config)
		return reconcile.Result{RequeueAfter: h.next(v.now, v.now)}, nil
	}
	if t == nil {
		var err error
		if t, err = d.pull(ctx, v, h.spec.BaseImage); err != nil {
			if f := (failure{}); errors.As(err, &f) {
				return retry()
			}
			return reconcile.Result{}, err
		}
	}
	if left := t.done.Sub(v.now); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	if err := d.stage(h); err != nil {
		return retry()
	}
	h.Reboot(firstbootDone + h.spec.Config) // wakes the kubelet, which waits for nothing else
	return reconcile.Result{RequeueAfter: h.next(v.now, v.now)}, nil
}

const firstbootDone = "Completing firstboot provisioning to "

// annotate writes annotations of the node in one patch; nil deletes. It touches nothing else, so it meets no conflict.
func (d *daemon) annotate(ctx context.Context, v *visit, annotations map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return fmt.Errorf("annotate node %s: %w", v.node.Name, err)
	}
	if err := d.env.Client.Patch(ctx, v.node, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("annotate node %s: %w", v.node.Name, err)
	}
	return nil
}

func (d *daemon) note(v *visit, reason, message string) {
	d.env.Recorder.Eventf(v.node, nil, corev1.EventTypeNormal, reason, reason, "%s", message)
}

func (d *daemon) warn(v *visit, reason, message string) {
	d.env.Recorder.Eventf(v.node, nil, corev1.EventTypeWarning, reason, reason, "%s", message)
}
