package store

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// View is a lagging cache: it says up to which revision a client sees a kind.
type View interface {
	// Revision is called on each read with the kind that is read. Reads see the newest state that is not newer.
	Revision(schema.GroupVersionKind) int64
}

// ClientOptions configures a Client.
type ClientOptions struct {
	// Author is recorded as the writer, and is the default field manager.
	Author string
	// View, where not nil, is what gets and lists read. Writes, watches and subresources always meet the newest state.
	View View
	// Before, where not nil, is called before each request is executed; its error is returned and nothing is done.
	Before func(*Request) error
	// After, where not nil, is called with each executed request and its result; what it returns is what the caller
	// gets, so that a response can be lost.
	After func(*Request, error) error
}

// Client is a client of a Store. It implements client.WithWatch.
type Client struct {
	s *Store
	o ClientOptions
}

var _ client.WithWatch = (*Client)(nil)

// Client returns a client.
func (s *Store) Client(o ClientOptions) *Client { return &Client{s, o} }

// Scheme returns the store's scheme.
func (c *Client) Scheme() *runtime.Scheme { return c.s.scheme }

// RESTMapper returns a mapper that knows the kinds that are served at the time of each call.
func (c *Client) RESTMapper() meta.RESTMapper { return liveMapper{c.s} }

// GroupVersionKindFor returns an object's kind.
func (c *Client) GroupVersionKindFor(obj runtime.Object) (schema.GroupVersionKind, error) {
	switch obj.(type) {
	case *apiextensionsv1.CustomResourceDefinition:
		return crdKind, nil // whether the scheme has it or not
	case *apiextensionsv1.CustomResourceDefinitionList:
		return crdKind.GroupVersion().WithKind("CustomResourceDefinitionList"), nil
	}
	return apiutil.GVKForObject(obj, c.s.scheme)
}

// IsObjectNamespaced says whether an object's kind is namespaced.
func (c *Client) IsObjectNamespaced(obj runtime.Object) (bool, error) {
	k, err := c.kindOf(obj)
	if err != nil {
		return false, err
	}
	return k.namespaced, nil
}

func (c *Client) kindOf(obj runtime.Object) (*kind, error) {
	gvk, err := c.GroupVersionKindFor(obj)
	if err != nil {
		return nil, err
	}
	if _, ok := obj.(client.ObjectList); ok {
		gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
	}
	return c.served(gvk)
}

func (c *Client) served(gvk schema.GroupVersionKind) (*kind, error) {
	k := c.s.kind(gvk)
	if k == nil || k.hidden {
		return nil, &meta.NoKindMatchError{GroupKind: gvk.GroupKind(), SearchedVersions: []string{gvk.Version}}
	}
	return k, nil
}

// do frames a request with the client's hooks. It tells the observers of refused writes.
func (c *Client) do(ctx context.Context, r *Request, fn func() error) error {
	r.Author = c.o.Author
	err := ctx.Err()
	if err == nil && c.o.Before != nil {
		err = c.o.Before(r)
	}
	if err == nil {
		err = fn()
		if c.o.After != nil {
			err = c.o.After(r, err)
		}
	}
	switch r.Verb {
	case "get", "list", "watch":
	default:
		if err != nil {
			c.s.refused(r, err)
		}
	}
	return err
}

// view returns the state of a kind that the client sees, and the revision that stands for it.
func (c *Client) view(k *kind) (version, int64, error) {
	if c.o.View == nil {
		c.s.mu.RLock()
		defer c.s.mu.RUnlock()
		return k.data.versions[len(k.data.versions)-1], c.s.revision, nil
	}
	r := c.o.View.Revision(k.gvk)
	v, ok := c.s.at(k, r)
	if !ok {
		return version{}, 0, apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d", r))
	}
	return v, r, nil
}

// Get reads an object.
func (c *Client) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	k, err := c.kindOf(obj)
	if err != nil {
		return err
	}
	o := (&client.GetOptions{}).ApplyOptions(opts)
	r := &Request{Verb: "get", GVK: k.gvk, Namespace: key.Namespace, Name: key.Name}
	return c.do(ctx, r, func() error {
		if key.Name == "" {
			return errors.New("resource name may not be empty")
		}
		v, _, err := c.view(k)
		if err != nil {
			return err
		}
		found, ok := v.objects.Get(k.key(key.Namespace, key.Name))
		if !ok {
			return k.notFound(key.Name)
		}
		share := o.UnsafeDisableDeepCopy != nil && *o.UnsafeDisableDeepCopy
		return k.wrap("decode", found, found.into(obj, share))
	})
}

func (k *kind) wrap(operation string, o *Object, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s %s: %w", operation, k.plural, o.key, err)
}

// List reads objects in the order of namespace and name.
func (c *Client) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	k, err := c.kindOf(list)
	if err != nil {
		return err
	}
	o := (&client.ListOptions{}).ApplyOptions(opts)
	r := &Request{Verb: "list", GVK: k.gvk, Namespace: o.Namespace}
	return c.do(ctx, r, func() error { return c.list(k, list, o) })
}

func (c *Client) list(k *kind, list client.ObjectList, o *client.ListOptions) error {
	v, revision, err := c.view(k)
	if err != nil {
		return err
	}
	match, err := k.matcher(o)
	if err != nil {
		return err
	}
	start := ""
	if o.Continue != "" {
		if revision, start, err = decodeContinue(o.Continue); err != nil {
			return err
		}
		if v, err = c.s.snapshot(k, revision); err != nil {
			return err
		}
	} else if raw := o.Raw; raw != nil && raw.ResourceVersion != "" && raw.ResourceVersion != "0" {
		rv, err := strconv.ParseInt(raw.ResourceVersion, 10, 64)
		if err != nil {
			return apierrors.NewBadRequest(fmt.Sprintf(
				"invalid resource version: resourceVersion: Invalid value: %q: strconv.ParseUint: parsing %q: invalid syntax", raw.ResourceVersion, raw.ResourceVersion))
		}
		switch {
		case raw.ResourceVersionMatch == metav1.ResourceVersionMatchExact:
			if v, err = c.s.snapshot(k, rv); err != nil {
				return err
			}
			revision = rv
		case rv > c.s.Revision():
			return apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", rv, c.s.Revision()), 1)
		}
	}
	objects, prefix := v.objects, ""
	if o.FieldSelector != nil && v.byNode != nil {
		if node, ok := o.FieldSelector.RequiresExactMatch("spec.nodeName"); ok {
			objects, prefix = v.byNode, node+"/"
			if start != "" {
				start = prefix + start
			}
		}
	}
	if k.namespaced && o.Namespace != "" {
		prefix += o.Namespace + "/"
	}
	var found []*Object
	more, next := int64(0), ""
	objects.Ascend(max(prefix, start), func(key string, obj *Object) bool {
		if !strings.HasPrefix(key, prefix) {
			return false
		}
		if !match(obj) {
			return true
		}
		if o.Limit > 0 && int64(len(found)) == o.Limit {
			if next == "" {
				next = obj.key
			}
			more++
			return true
		}
		found = append(found, obj)
		return true
	})
	share := o.UnsafeDisableDeepCopy != nil && *o.UnsafeDisableDeepCopy
	if err := fillList(k, list, found, share); err != nil {
		return err
	}
	lm, err := meta.ListAccessor(list)
	if err != nil {
		return err
	}
	lm.SetResourceVersion(strconv.FormatInt(revision, 10))
	lm.SetContinue("")
	lm.SetRemainingItemCount(nil)
	if next != "" {
		lm.SetContinue(encodeContinue(revision, next))
		if emptySelectors(o) {
			lm.SetRemainingItemCount(&more)
		}
	}
	return nil
}

// snapshot returns a kind at an exact revision, or 410 Gone.
func (s *Store) snapshot(k *kind, revision int64) (version, error) {
	s.mu.RLock()
	floor, newest := s.floor, s.revision
	s.mu.RUnlock()
	if revision > newest {
		return version{}, apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", revision, newest), 1)
	}
	if revision < floor {
		return version{}, apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result.")
	}
	v, ok := s.at(k, revision)
	if !ok {
		return version{}, apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
	}
	return v, nil
}

// fillList puts objects into a list of any form.
func fillList(k *kind, list client.ObjectList, objects []*Object, share bool) error {
	if u, ok := list.(*unstructured.UnstructuredList); ok {
		if u.Object == nil {
			u.Object = map[string]any{}
		}
		u.SetGroupVersionKind(k.gvk.GroupVersion().WithKind(k.gvk.Kind + "List"))
		u.Items = make([]unstructured.Unstructured, len(objects))
		for i, o := range objects {
			if err := o.into(&u.Items[i], share); err != nil {
				return k.wrap("decode", o, err)
			}
		}
		return nil
	}
	ptr, err := meta.GetItemsPtr(list)
	if err != nil {
		return err
	}
	items := reflect.ValueOf(ptr).Elem()
	out := reflect.MakeSlice(items.Type(), len(objects), len(objects))
	for i, o := range objects {
		e := out.Index(i)
		if e.Kind() == reflect.Pointer {
			e.Set(reflect.New(e.Type().Elem()))
		} else {
			e = e.Addr()
		}
		item, ok := e.Interface().(runtime.Object)
		if !ok {
			return fmt.Errorf("list %s: items of %T are no objects", k.plural, list)
		}
		if err := o.into(item, share); err != nil {
			return k.wrap("decode", o, err)
		}
	}
	items.Set(out)
	return nil
}

// newWrite starts a write request.
func (c *Client) newWrite(verb string, k *kind, namespace, name string) *write {
	return &write{kind: k, manager: c.o.Author, req: &Request{Verb: verb, GVK: k.gvk, Namespace: namespace, Name: name}}
}

func (w *write) options(dryRun []string, manager string) {
	w.dryRun = len(dryRun) > 0
	w.req.DryRun = w.dryRun
	if manager != "" {
		w.manager = manager
	}
}

// execute runs a write between the hooks and returns its result into obj.
func (c *Client) execute(ctx context.Context, w *write, obj runtime.Object, fn func() (*Object, error)) error {
	return c.do(ctx, w.req, func() error {
		stored, err := c.locked(fn)
		if err != nil || obj == nil {
			return err
		}
		return w.kind.wrap("decode", stored, stored.into(obj, false))
	})
}

func (c *Client) locked(fn func() (*Object, error)) (*Object, error) {
	c.s.writing.Lock()
	defer c.s.writing.Unlock()
	return fn()
}

// Create stores a new object.
func (c *Client) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	k, err := c.kindOf(obj)
	if err != nil {
		return err
	}
	o := (&client.CreateOptions{}).ApplyOptions(opts)
	w := c.newWrite("create", k, obj.GetNamespace(), obj.GetName())
	w.options(o.DryRun, o.FieldManager)
	w.req.Object = obj
	return c.execute(ctx, w, obj, func() (*Object, error) {
		in, err := w.encode(obj)
		if err != nil {
			return nil, err
		}
		return c.s.create(w, in)
	})
}

// Update replaces an object, all but its status where that is a subresource.
func (c *Client) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	o := (&client.UpdateOptions{}).ApplyOptions(opts)
	return c.update(ctx, obj, obj, "", o)
}

func (c *Client) update(ctx context.Context, obj, body client.Object, subresource string, o *client.UpdateOptions) error {
	k, err := c.kindOf(obj)
	if err != nil {
		return err
	}
	w := c.newWrite("update", k, obj.GetNamespace(), obj.GetName())
	w.req.Subresource, w.req.Object = subresource, body
	w.options(o.DryRun, o.FieldManager)
	return c.execute(ctx, w, body, func() (*Object, error) {
		if err := w.checkSubresource(); err != nil {
			return nil, err
		}
		in, err := w.encode(body)
		if err != nil {
			return nil, err
		}
		return c.s.update(w, in)
	})
}

// encode returns the canonical form of what the client sent.
func (w *write) encode(obj client.Object) (map[string]any, error) {
	in, err := encode(obj, w.kind.gvk)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	_, untyped := obj.(runtime.Unstructured)
	w.canonical = !untyped
	return in, nil
}

// checkSubresource refuses a subresource that the kind doesn't have.
func (w *write) checkSubresource() error {
	k := w.kind
	switch w.req.Subresource {
	case "":
		return nil
	case "status":
		if k.status {
			return nil
		}
		if k.crd != nil {
			return k.notFound(w.req.Name)
		}
	case "finalize":
		if k.gvk == namespaceKind {
			return nil
		}
	}
	return noSuchResource()
}

func noSuchResource() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: 404, Reason: metav1.StatusReasonNotFound, Message: "the server could not find the requested resource",
		Details: &metav1.StatusDetails{},
	}}
}

// Delete deletes an object, or starts its deletion.
func (c *Client) Delete(ctx context.Context, obj client.Object, opts ...client.DeleteOption) error {
	k, err := c.kindOf(obj)
	if err != nil {
		return err
	}
	o := (&client.DeleteOptions{}).ApplyOptions(opts)
	w := c.newWrite("delete", k, obj.GetNamespace(), obj.GetName())
	w.options(o.DryRun, "")
	return c.execute(ctx, w, nil, func() (*Object, error) {
		return c.s.delete(w, obj.GetName(), *o.AsDeleteOptions().DeepCopy())
	})
}

// DeleteAllOf deletes all objects of a kind that match, each by itself, in the order of namespace and name.
func (c *Client) DeleteAllOf(ctx context.Context, obj client.Object, opts ...client.DeleteAllOfOption) error {
	k, err := c.kindOf(obj)
	if err != nil {
		return err
	}
	o := (&client.DeleteAllOfOptions{}).ApplyOptions(opts)
	w := c.newWrite("deletecollection", k, o.ListOptions.Namespace, "")
	w.options(o.DeleteOptions.DryRun, "")
	return c.execute(ctx, w, nil, func() (*Object, error) {
		match, err := k.matcher(&o.ListOptions)
		if err != nil {
			return nil, err
		}
		if k.namespaced && o.ListOptions.Namespace == "" {
			return nil, apierrors.NewMethodNotSupported(k.resource, "delete")
		}
		var all []*Object
		c.s.head(k).objects.Scan(func(_ string, obj *Object) bool {
			if (!k.namespaced || obj.namespace == o.ListOptions.Namespace) && match(obj) {
				all = append(all, obj)
			}
			return true
		})
		for _, obj := range all {
			if _, err := c.s.delete(w, obj.name, *o.DeleteOptions.AsDeleteOptions().DeepCopy()); err != nil && !apierrors.IsNotFound(err) {
				return nil, err
			}
		}
		return nil, nil
	})
}

// Patch changes an object by a patch. An apply patch creates it if need be.
func (c *Client) Patch(ctx context.Context, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	o := (&client.PatchOptions{}).ApplyOptions(opts)
	return c.patch(ctx, obj, obj, patch, "", o)
}

func (c *Client) patch(ctx context.Context, obj, body client.Object, patch client.Patch, subresource string, o *client.PatchOptions) error {
	k, err := c.kindOf(obj)
	if err != nil {
		return err
	}
	data, err := patch.Data(body)
	if err != nil {
		return err
	}
	verb := "patch"
	if patch.Type() == types.ApplyPatchType {
		verb = "apply"
	}
	w := c.newWrite(verb, k, obj.GetNamespace(), obj.GetName())
	w.req.Subresource, w.req.Object, w.req.Patch, w.req.PatchType = subresource, body, data, patch.Type()
	w.options(o.DryRun, o.FieldManager)
	w.force = o.Force != nil && *o.Force
	if w.req.PatchType == types.ApplyPatchType {
		w.manager = o.FieldManager // which has no default
	}
	return c.execute(ctx, w, body, func() (*Object, error) {
		if err := w.checkSubresource(); err != nil {
			return nil, err
		}
		return c.s.patch(w, data)
	})
}

// Apply applies a configuration server-side.
func (c *Client) Apply(ctx context.Context, ac runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
	o := (&client.ApplyOptions{}).ApplyOptions(opts)
	return c.apply(ctx, ac, "", o)
}

var errNotApplicable = errors.New("apply configuration has no apiVersion, kind and name")

func (c *Client) apply(ctx context.Context, ac runtime.ApplyConfiguration, subresource string, o *client.ApplyOptions) error {
	data, u, err := decodeApplyConfiguration(ac)
	if err != nil {
		return err
	}
	k, err := c.served(u.GroupVersionKind())
	if err != nil {
		return err
	}
	w := c.newWrite("apply", k, u.GetNamespace(), u.GetName())
	w.req.Subresource, w.req.Object, w.req.Patch, w.req.PatchType = subresource, u, data, types.ApplyPatchType
	w.options(o.DryRun, o.FieldManager)
	w.force = o.Force != nil && *o.Force
	if w.req.PatchType == types.ApplyPatchType {
		w.manager = o.FieldManager // which has no default
	}
	result := &unstructured.Unstructured{}
	if err := c.execute(ctx, w, result, func() (*Object, error) {
		if err := w.checkSubresource(); err != nil {
			return nil, err
		}
		return c.s.patch(w, data)
	}); err != nil {
		return err
	}
	return encodeApplyConfiguration(result, ac)
}
