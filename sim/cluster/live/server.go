package live

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/utils/ptr"

	"github.com/layersim/layersim/sim/cluster/proxy"
	"github.com/layersim/layersim/sim/store"
)

// Server is an API server on which runs are made, one after the other, with the proxy in front of it.
type Server struct {
	proxy    *proxy.Proxy
	config   *rest.Config // past the proxy
	run      atomic.Pointer[Engine]
	dynamic  dynamic.Interface
	mapper   meta.RESTMapper
	kinds    map[schema.GroupVersionResource]schema.GroupVersionKind
	watched  []schema.GroupVersionResource
	followed map[schema.GroupVersionKind]bool // the kinds of watched
	baseline map[types.UID]bool
	// manifests are the Deployments of the bundled controllers, by name.
	manifests map[string]*unstructured.Unstructured
	// remote is where pods reach the proxy; "" until the first wants to.
	remote string
}

// dull are the groups whose revisions tell nothing of layering but come all the time.
var dull = []string{"apiregistration.k8s.io", "flowcontrol.apiserver.k8s.io"}

// NewServer opens a proxy in front of an API server that has all its CustomResourceDefinitions. Config reaches it as a
// cluster administrator.
func NewServer(config *rest.Config) (*Server, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("discover kinds: %w", err)
	}
	groups, err := restmapper.GetAPIGroupResources(d)
	if err != nil {
		return nil, fmt.Errorf("discover kinds: %w", err)
	}
	s := &Server{config: config, mapper: restmapper.NewDiscoveryRESTMapper(groups), kinds: map[schema.GroupVersionResource]schema.GroupVersionKind{}}
	if s.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, err
	}
	if s.manifests, err = deployments(); err != nil {
		return nil, err
	}
	for _, g := range groups {
		for version, resources := range g.VersionedResources {
			for _, r := range resources {
				if strings.Contains(r.Name, "/") {
					continue
				}
				gvr := schema.GroupVersionResource{Group: g.Group.Name, Version: version, Resource: r.Name}
				s.kinds[gvr] = gvr.GroupVersion().WithKind(r.Kind)
				// Two groups serve Events; the history has those of the core group, as on the simulated cluster. Endpoints
				// say what EndpointSlices do. Each kind is watched in one version.
				if version == preferred(g, r.Name) && slices.Contains(r.Verbs, "watch") && r.Kind != "Endpoints" &&
					!slices.Contains(dull, g.Group.Name) && (r.Kind != "Event" || g.Group.Name == "") {
					s.watched = append(s.watched, gvr)
				}
			}
		}
	}
	slices.SortFunc(s.watched, func(a, b schema.GroupVersionResource) int { return strings.Compare(a.String(), b.String()) })
	s.followed = map[schema.GroupVersionKind]bool{}
	for _, gvr := range s.watched {
		s.followed[s.kinds[gvr]] = true
	}
	s.proxy, err = proxy.New(proxy.Options{
		Target: config,
		Kinds: func(gvr schema.GroupVersionResource) (schema.GroupVersionKind, bool) {
			kind, ok := s.kinds[gvr]
			return kind, ok
		},
		Before: func(r *store.Request) error {
			if e := s.run.Load(); e != nil && !proxy.Housekeeping(r) {
				return e.faults.Before(r)
			}
			return nil
		},
		After: func(r *store.Request, err error) error {
			if e := s.run.Load(); e != nil && !proxy.Housekeeping(r) {
				return e.faults.After(r, err)
			}
			return err
		},
		Observe: func(w proxy.Write) {
			if e := s.run.Load(); e != nil {
				e.wrote(w)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("open proxy: %w", err)
	}
	return s, nil
}

// preferred is the version in which a resource is watched: that of its group, or the first one that has it.
func preferred(g *restmapper.APIGroupResources, resource string) string {
	serves := func(version string) bool {
		return slices.ContainsFunc(g.VersionedResources[version], func(r metav1.APIResource) bool { return r.Name == resource })
	}
	if serves(g.Group.PreferredVersion.Version) {
		return g.Group.PreferredVersion.Version
	}
	for _, v := range g.Group.Versions {
		if serves(v.Version) {
			return v.Version
		}
	}
	return ""
}

// Close closes the proxy.
func (s *Server) Close() error { return s.proxy.Close() }

// Kubeconfig is a kubeconfig file for a program of Kubernetes, by name.
func (s *Server) Kubeconfig(program string) []byte { return s.proxy.Admit(program).Kubeconfig() }

// Settle makes the namespaces and the roles that all runs have in common, and remembers what is there as what has been there from the
// beginning.
func (s *Server) Settle(ctx context.Context, namespaces []string) error {
	namespaced := schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	accounts := schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
	for _, name := range namespaces {
		n := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace"}}
		n.SetName(name)
		if _, err := s.dynamic.Resource(namespaced).Create(ctx, n, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create namespace %s: %w", name, err)
		}
		// A pod of a namespace without it would be refused.
		var last error
		err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
			_, last = s.dynamic.Resource(accounts).Namespace(name).Get(ctx, "default", metav1.GetOptions{})
			return last == nil, nil
		})
		if err != nil {
			return fmt.Errorf("wait for the default service account of namespace %s: %w (%v)", name, err, last)
		}
	}
	if err := s.grant(ctx); err != nil {
		return err
	}
	s.baseline = map[types.UID]bool{}
	return s.each(ctx, s.watched, func(_ schema.GroupVersionResource, o *unstructured.Unstructured) error {
		s.baseline[o.GetUID()] = true
		return nil
	})
}

// resetLimit is how long it may take until what a run left is gone.
const resetLimit = 3 * time.Minute

// Reset removes whatever has come since Settle, and waits until it is gone. It may keep the agent of the machines. For as long as
// an outage may take, requests may fail: the API server is started again after a fault of the run.
func (s *Server) Reset(ctx context.Context, keepNodes bool, outage time.Duration) error {
	var left []string
	var last error
	resources, begin := s.watched, time.Now()
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, resetLimit, true, func(ctx context.Context) (bool, error) {
		var busy []schema.GroupVersionResource
		left, busy, last = s.removeNew(ctx, resources, keepNodes)
		switch {
		case last != nil && time.Since(begin) >= outage:
			return false, last
		case last == nil && len(busy) > 0:
			resources = busy // the others only when these are gone
		case last == nil && len(resources) == len(s.watched):
			return true, nil
		default:
			resources = s.watched
		}
		return false, nil
	})
	if err == nil {
		return nil
	}
	if last != nil && !errors.Is(err, last) {
		err = fmt.Errorf("%w: %w", err, last)
	}
	if len(left) > 0 {
		err = fmt.Errorf("%w; still there: %s", err, strings.Join(left, ", "))
	}
	return fmt.Errorf("remove what the last run left: %w", err)
}

// removeNew asks for the removal of what has come since Settle. It returns what that was, and in which of the resources.
func (s *Server) removeNew(ctx context.Context, resources []schema.GroupVersionResource, keepNodes bool) (
	left []string, busy []schema.GroupVersionResource, err error) {
	err = s.each(ctx, resources, func(gvr schema.GroupVersionResource, o *unstructured.Unstructured) error {
		if s.baseline[o.GetUID()] || kept(o) || keepNodes && o.GetNamespace() == AgentsNamespace {
			return nil
		}
		left = append(left, strings.ToLower(o.GetKind())+"/"+o.GetName())
		busy = append(busy, gvr)
		return s.remove(ctx, gvr, o)
	})
	return left, slices.Compact(busy), err
}

// kept is what controllers of Kubernetes make anew at once. Leases of others go: who was ended without giving one back would
// have its successor wait.
func kept(o *unstructured.Unstructured) bool {
	switch o.GetKind() {
	case "Event":
		return true
	case "Lease":
		return ofKubernetes(o.GetNamespace())
	case "ServiceAccount":
		return o.GetName() == "default"
	case "ConfigMap":
		return o.GetName() == "kube-root-ca.crt"
	}
	return false
}

func (s *Server) remove(ctx context.Context, gvr schema.GroupVersionResource, o *unstructured.Unstructured) error {
	resource := s.dynamic.Resource(gvr).Namespace(o.GetNamespace())
	var errs []error
	if len(o.GetFinalizers()) > 0 {
		_, err := resource.Patch(ctx, o.GetName(), types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
		errs = append(errs, err)
	}
	err := resource.Delete(ctx, o.GetName(), metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To[int64](0), PropagationPolicy: ptr.To(metav1.DeletePropagationBackground),
		Preconditions: metav1.NewUIDPreconditions(string(o.GetUID())),
	})
	for _, err := range append(errs, err) {
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("remove %s %s: %w", strings.ToLower(o.GetKind()), o.GetName(), err)
		}
	}
	return nil
}

// each visits all objects of resources.
func (s *Server) each(ctx context.Context, resources []schema.GroupVersionResource, visit func(schema.GroupVersionResource, *unstructured.Unstructured) error) error {
	var errs []error
	for _, gvr := range resources {
		list, err := s.dynamic.Resource(gvr).List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("list %s: %w", gvr.Resource, err)
		}
		for n := range list.Items {
			errs = append(errs, visit(gvr, &list.Items[n]))
		}
	}
	return errors.Join(errs...)
}
