package run

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/sim/cluster"
	"github.com/layersim/layersim/sim/scenario"
	"github.com/layersim/layersim/sim/world"
)

// author is the name under which a scenario writes.
const author = "scenario"

// perform does one action and says what was done.
func (r *runner) perform(a *scenario.Action) (string, error) {
	ctx, c := context.Background(), r.cluster
	switch a.Verb {
	case "apply", "create":
		var names []string
		for _, o := range a.Objects {
			if err := r.apply(ctx, o, a.Verb == "apply"); err != nil {
				return "", err
			}
			names = append(names, strings.ToLower(o.GetKind())+"/"+o.GetName())
		}
		return a.Verb + " " + strings.Join(names, ", "), nil
	case "rotate":
		return "rotate account " + a.Account, c.Rotate(a.Account)
	case "revoke":
		return "revoke account " + a.Account, c.Revoke(a.Account)
	case "restore":
		return "restore account " + a.Account, c.Restore(a.Account)
	case "secret":
		var names []string
		for _, s := range a.Secrets {
			names = append(names, s.Name)
		}
		return "write secret " + strings.Join(names, ", "), c.WriteSecrets(a.Secrets)
	case "fault":
		return "arm fault " + a.Fault.Name, c.Faults.Arm(*a.Fault)
	case "heal":
		for _, name := range a.Names {
			if err := c.Faults.Heal(name); err != nil {
				return "", err
			}
		}
		return "heal " + strings.Join(a.Names, ", "), nil
	case "restart", "stop", "start":
		return a.Verb + " " + strings.Join(a.Names, ", "), r.processes(a)
	case "crash":
		return r.crash(a.Crash)
	case "write":
		for _, f := range a.Files {
			var err error
			if f.Content == nil {
				err = c.Fleet.RestoreFile(f.Node, f.Path)
			} else {
				err = c.Fleet.WriteFile(f.Node, f.Path, *f.Content)
			}
			if err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("write %d files", len(a.Files)), nil
	case "wait":
		r.pause = true
		r.Deadline(r.Timing().Of(a.Duration), func() { r.pause = false })
		return "wait " + a.Duration.String(), nil
	case "image":
		return r.registry(a.Registry)
	}
	return r.targets(ctx, a)
}

// apply creates an object, or merges it over the one that is there.
func (r *runner) apply(ctx context.Context, o *unstructured.Unstructured, merge bool) error {
	name := strings.ToLower(o.GetKind()) + "/" + o.GetName()
	cl, err := r.Client(author)
	if err != nil {
		return err
	}
	err = cl.Create(ctx, o.DeepCopy())
	if !merge || !apierrors.IsAlreadyExists(err) {
		if err != nil {
			return fmt.Errorf("create %s: %w", name, err)
		}
		return nil
	}
	patch, err := json.Marshal(o.Object)
	if err != nil {
		return fmt.Errorf("apply %s: %w", name, err)
	}
	if err := cl.Patch(ctx, o.DeepCopy(), client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("apply %s: %w", name, err)
	}
	return nil
}

// targets performs the verbs that patch or delete objects.
func (r *runner) targets(ctx context.Context, a *scenario.Action) (string, error) {
	cl, err := r.Client(author)
	if err != nil {
		return "", err
	}
	var done []string
	for _, t := range a.Targets {
		gvk, _, ok := scenario.KindOf(t.Kind)
		if !ok {
			return "", fmt.Errorf("unknown kind %s", t.Kind)
		}
		objects, err := r.find(gvk.Kind, t.Ref)
		if err != nil {
			return "", err
		}
		if len(objects) == 0 {
			return "", fmt.Errorf("there is no %s %s", strings.ToLower(t.Kind), t.Name)
		}
		for _, o := range objects {
			name := strings.ToLower(t.Kind) + "/" + o.GetName()
			switch a.Verb {
			case "delete":
				err = cl.Delete(ctx, o, client.PropagationPolicy("Background"))
			case "evict":
				err = evict(ctx, cl, o)
			default:
				var patch []byte
				if patch, err = json.Marshal(t.Patch); err == nil {
					err = cl.Patch(ctx, o, client.RawPatch(types.MergePatchType, patch))
				}
			}
			if err != nil {
				return "", fmt.Errorf("%s %s: %w", a.Verb, name, err)
			}
			done = append(done, name)
		}
	}
	return a.Verb + " " + strings.Join(done, ", "), nil
}

// evict asks for a pod's eviction.
func evict(ctx context.Context, cl client.Client, o *unstructured.Unstructured) error {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: o.GetName()}}
	return cl.SubResource("eviction").Create(ctx, pod, &policyv1.Eviction{})
}

// find returns copies of the objects that a reference names, by name.
func (r *runner) find(kind string, ref scenario.Ref) ([]*unstructured.Unstructured, error) {
	gvk, _, ok := scenario.KindOf(kind)
	if !ok {
		return nil, fmt.Errorf("unknown kind %s", kind)
	}
	var list unstructured.UnstructuredList
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	cl, err := r.Client(author)
	if err != nil {
		return nil, err
	}
	if err := cl.List(context.Background(), &list); err != nil {
		return nil, fmt.Errorf("list %s: %w", kind, err)
	}
	var found []*unstructured.Unstructured
	for n := range list.Items {
		o := &list.Items[n]
		if scenario.Match(ref.Name, o.GetName()) && (ref.Namespace == "" || o.GetNamespace() == "" || scenario.Match(ref.Namespace, o.GetNamespace())) {
			found = append(found, o)
		}
	}
	return found, nil
}

func (r *runner) processes(a *scenario.Action) error {
	for _, name := range a.Names {
		p := r.Process(name)
		if p == nil {
			return fmt.Errorf("%s %s: there is no such component; there are %s", a.Verb, name, strings.Join(r.Processes(), ", "))
		}
		var err error
		switch a.Verb {
		case "restart":
			err = p.Restart()
		case "stop":
			err = p.Stop()
		case "start":
			err = p.StartAgain()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// crash arms a crash. It is accounted for like a fault: one that never happens fails the scenario.
func (r *runner) crash(c *scenario.Crash) (string, error) {
	p := r.Process(c.Component)
	if p == nil {
		return "", fmt.Errorf("crash %s: there is no such component; there are %s", c.Component, strings.Join(r.Processes(), ", "))
	}
	fired := r.cluster.Faults.Track(fmt.Sprintf("crash of %s %s write %d", c.Component, c.When, c.Write))
	return "crash " + c.Component, p.CrashAt(world.Crash{
		After: c.When == "after", Write: max(c.Write, 1), Verb: c.Verb, Kind: c.Kind, Fired: fired})
}

func (r *runner) registry(a *scenario.RegistryAction) (string, error) {
	c := r.cluster
	if a.Quota != "" {
		repository := a.Quota
		if host, _, _ := strings.Cut(repository, "/"); !strings.ContainsAny(host, ".:") {
			repository = cluster.InternalRegistry + "/" + repository
		}
		c.Registry.SetQuota(repository, a.Bytes)
		return fmt.Sprintf("set quota of %s to %d bytes", a.Quota, a.Bytes), nil
	}
	build, ok := strings.CutPrefix(a.Delete, "build:")
	if !ok {
		return "delete image " + a.Delete, c.Registry.Delete(a.Delete)
	}
	objects, err := r.find("MachineOSBuild", scenario.Ref{Name: build})
	if err != nil {
		return "", err
	}
	images := map[string]bool{}
	for _, o := range objects {
		if image, _, _ := unstructured.NestedString(o.Object, "status", "digestedImagePushSpec"); image != "" {
			images[image] = true
		}
	}
	if len(images) == 0 {
		return "", fmt.Errorf("no MachineOSBuild %s has an image", build)
	}
	for _, image := range slices.Sorted(maps.Keys(images)) {
		if err := c.Registry.Delete(image); err != nil {
			return "", err
		}
	}
	return "delete images of " + build, nil
}
