package live

import (
	"cmp"
	"context"
	"fmt"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	authorizationv1client "k8s.io/client-go/kubernetes/typed/authorization/v1"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/fixtures"
	"github.com/layersim/layersim/sim/cluster/proxy"
)

// admit lets a process in: the bundled controllers with the rights that their manifests give to their service accounts, all
// others as administrators.
func (e *Engine) admit(process string) *proxy.Caller {
	if e.restricted(process) {
		return e.Server.proxy.AdmitAs(process, proxy.ServiceAccount(layering.Namespace, process))
	}
	return e.Server.proxy.Admit(process)
}

// restricted tells whether a process has but the rights of its service account. What another release's controllers may do
// is not known here.
func (e *Engine) restricted(process string) bool {
	return e.Foundation == nil && e.Server.manifests[process] != nil
}

// apply creates or changes an object.
func (s *Server) apply(ctx context.Context, o *unstructured.Unstructured) error {
	gvk := o.GroupVersionKind()
	mapping, err := s.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err == nil {
		_, err = s.dynamic.Resource(mapping.Resource).Namespace(o.GetNamespace()).Apply(ctx, o.GetName(), o,
			metav1.ApplyOptions{FieldManager: "layersim", Force: true})
	}
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", gvk.Kind, o.GetName(), err)
	}
	return nil
}

// applyTyped does the same with an object of a Go type.
func (s *Server) applyTyped(ctx context.Context, o any) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return err
	}
	delete(content, "status")
	return s.apply(ctx, &unstructured.Unstructured{Object: content})
}

// grant gives the bundled controllers' service accounts their rights, and waits until the API server goes by them.
func (s *Server) grant(ctx context.Context) error {
	objects, err := fixtures.Controllers()
	if err != nil {
		return err
	}
	api, err := authorizationv1client.NewForConfig(s.config)
	if err != nil {
		return err
	}
	var asked []authorizationv1.SubjectAccessReviewSpec
	for _, o := range objects {
		var role rbacv1.ClusterRole // a Role has the same rules
		switch o.GetKind() {
		case "ClusterRole", "Role":
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &role); err != nil {
				return fmt.Errorf("read %s %s: %w", o.GetKind(), o.GetName(), err)
			}
			rule := role.Rules[0]
			account := proxy.ServiceAccount(layering.Namespace, o.GetName())
			attributes := &authorizationv1.ResourceAttributes{
				Namespace: cmp.Or(o.GetNamespace(), "any"), Group: rule.APIGroups[0], Resource: rule.Resources[0], Verb: rule.Verbs[0],
			}
			if len(rule.ResourceNames) > 0 {
				attributes.Name = rule.ResourceNames[0]
			}
			asked = append(asked, authorizationv1.SubjectAccessReviewSpec{User: account.User, Groups: account.Groups, ResourceAttributes: attributes})
		case "ClusterRoleBinding", "RoleBinding":
		default:
			continue // is made by who needs it
		}
		if err := s.apply(ctx, o); err != nil {
			return err
		}
	}
	for _, spec := range asked {
		var last error
		err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
			var review *authorizationv1.SubjectAccessReview
			review, last = api.SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
			return last == nil && review.Status.Allowed, nil
		})
		if err != nil {
			return fmt.Errorf("wait until %s may %s %s: %w (%v)", spec.User, spec.ResourceAttributes.Verb, spec.ResourceAttributes.Resource, err, last)
		}
	}
	return nil
}

// deployments are the manifests of the bundled controllers, by name.
func deployments() (map[string]*unstructured.Unstructured, error) {
	objects, err := fixtures.Controllers()
	if err != nil {
		return nil, err
	}
	found := make(map[string]*unstructured.Unstructured)
	for _, o := range objects {
		if o.GetKind() == "Deployment" {
			found[o.GetName()] = o
		}
	}
	return found, nil
}
