package store

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"sync/atomic"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Object is a stored state of an object. It never changes; a write makes a new one.
type Object struct {
	u         *unstructured.Unstructured
	gvk       schema.GroupVersionKind
	key       string
	namespace string
	name      string
	uid       types.UID
	labels    map[string]string
	revision  int64
	deleting  bool

	scheme *runtime.Scheme
	typed  atomic.Pointer[client.Object] // decoded on demand, dropped by Compact
}

// Unstructured returns the object in its canonical form. It is shared and must not be changed.
func (o *Object) Unstructured() *unstructured.Unstructured { return o.u }

// Typed returns the object as the Go type that the store's scheme has for its kind, or in unstructured form where the
// scheme knows none. It is decoded on demand and kept until a newer state is all that Compact leaves. It is shared and must not be changed.
func (o *Object) Typed() client.Object {
	if t := o.typed.Load(); t != nil {
		return *t
	}
	decoded := client.Object(o.u)
	if t, err := newTyped(o.scheme, o.gvk); err == nil {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.u.Object, t); err == nil {
			decoded = t
		}
	}
	o.typed.CompareAndSwap(nil, &decoded)
	return decoded
}

// meta returns the object's metadata, which is shared.
func (o *Object) meta() (metav1.Object, error) {
	if t := o.Typed(); t != client.Object(o.u) {
		return t, nil
	}
	return decodeMeta(o.u.Object)
}

// GroupVersionKind returns the object's kind.
func (o *Object) GroupVersionKind() schema.GroupVersionKind { return o.gvk }

// Namespace returns the object's namespace, empty for a cluster-scoped one.
func (o *Object) Namespace() string { return o.namespace }

// Name returns the object's name.
func (o *Object) Name() string { return o.name }

// UID returns the object's UID.
func (o *Object) UID() types.UID { return o.uid }

// Labels returns the object's labels. They are shared and must not be changed.
func (o *Object) Labels() map[string]string { return o.labels }

// Revision returns the store revision that made this state, which is its resourceVersion.
func (o *Object) Revision() int64 { return o.revision }

// Deleting says whether the object has a deletionTimestamp.
func (o *Object) Deleting() bool { return o.deleting }

// newTyped returns an empty typed object of a kind that the scheme, or else client-go's own scheme, knows.
func newTyped(s *runtime.Scheme, gvk schema.GroupVersionKind) (client.Object, error) {
	if gvk == crdKind {
		return &apiextensionsv1.CustomResourceDefinition{}, nil
	}
	if !s.Recognizes(gvk) {
		s = scheme.Scheme
	}
	n, err := s.New(gvk)
	if err != nil {
		return nil, err
	}
	t, ok := n.(client.Object)
	if !ok {
		return nil, fmt.Errorf("%T is not an object", n)
	}
	return t, nil
}

// into fills obj, which may be typed, unstructured or metadata only. With share set, obj gets the stored object's own
// maps and slices.
func (o *Object) into(obj runtime.Object, share bool) error {
	switch t := obj.(type) {
	case *unstructured.Unstructured:
		t.Object = o.u.Object
		if !share {
			t.Object = runtime.DeepCopyJSON(o.u.Object)
		}
		return nil
	case *metav1.PartialObjectMetadata:
		*t = metav1.PartialObjectMetadata{}
		meta := map[string]any{"apiVersion": o.u.Object["apiVersion"], "kind": o.u.Object["kind"], "metadata": o.u.Object["metadata"]}
		return runtime.DefaultUnstructuredConverter.FromUnstructured(meta, t)
	}
	typed := o.Typed()
	if reflect.TypeOf(typed) == reflect.TypeOf(obj) {
		var src runtime.Object = typed
		if !share {
			src = typed.DeepCopyObject()
		}
		reflect.ValueOf(obj).Elem().Set(reflect.ValueOf(src).Elem())
		return nil
	}
	v := reflect.ValueOf(obj).Elem()
	v.Set(reflect.Zero(v.Type()))
	return runtime.DefaultUnstructuredConverter.FromUnstructured(o.u.Object, obj)
}

// encode returns the canonical form of an object that a client sent; nothing in it is shared with obj.
func encode(obj runtime.Object, gvk schema.GroupVersionKind) (map[string]any, error) {
	var m map[string]any
	switch t := obj.(type) {
	case runtime.Unstructured:
		n, err := normalize(t.UnstructuredContent())
		if err != nil {
			return nil, err
		}
		m = n.(map[string]any)
	default:
		var err error
		if m, err = runtime.DefaultUnstructuredConverter.ToUnstructured(obj); err != nil {
			return nil, err
		}
	}
	m["apiVersion"], m["kind"] = gvk.GroupVersion().String(), gvk.Kind
	return m, nil
}

// normalize copies a JSON value and gives its numbers the types that decoding from JSON would give.
func normalize(v any) (any, error) {
	switch t := v.(type) {
	case nil, string, bool, int64:
		return v, nil
	case map[string]any:
		out := make(map[string]any, len(t))
		for _, k := range slices.Sorted(maps.Keys(t)) {
			n, err := normalize(t[k])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", k, err)
			}
			out[k] = n
		}
		return out, nil
	case []any:
		out := make([]any, len(t))
		for i, e := range t {
			n, err := normalize(e)
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", i, err)
			}
			out[i] = n
		}
		return out, nil
	case float64:
		if t == math.Trunc(t) && math.Abs(t) < 1<<53 {
			return int64(t), nil
		}
		return t, nil
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return r.Int(), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return int64(r.Uint()), nil
	case reflect.Float32:
		return normalize(r.Float())
	case reflect.String:
		return r.String(), nil
	case reflect.Bool:
		return r.Bool(), nil
	case reflect.Slice:
		out := make([]any, r.Len())
		for i := range out {
			n, err := normalize(r.Index(i).Interface())
			if err != nil {
				return nil, err
			}
			out[i] = n
		}
		return out, nil
	case reflect.Map:
		if r.Type().Key().Kind() == reflect.String {
			out := make(map[string]any, r.Len())
			keys := r.MapKeys() //layersim:allow maporder they are sorted on the next line
			slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(a.String(), b.String()) })
			for _, k := range keys {
				n, err := normalize(r.MapIndex(k).Interface())
				if err != nil {
					return nil, err
				}
				out[k.String()] = n
			}
			return out, nil
		}
	}
	return nil, fmt.Errorf("%T is no JSON value", v)
}

// equal compares canonical values.
func equal(a, b any) bool {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k, v := range x {
			w, ok := y[k]
			if !ok || !equal(v, w) {
				return false
			}
		}
		return true
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !equal(x[i], y[i]) {
				return false
			}
		}
		return true
	}
	switch b.(type) {
	case map[string]any, []any:
		return false
	}
	return a == b
}

// share puts the equal parts of the state before in place of next's own, so that a long history holds each only once.
// It returns the value to keep and whether the two are equal.
func share(next, old any) (any, bool) {
	switch n := next.(type) {
	case map[string]any:
		o, ok := old.(map[string]any)
		if !ok {
			return next, false
		}
		same := len(n) == len(o)
		for k, v := range n {
			before, ok := o[k]
			kept, eq := share(v, before)
			if ok && eq {
				n[k] = kept
			} else {
				same = false
			}
		}
		if same {
			return o, true
		}
		return n, false
	case []any:
		o, ok := old.([]any)
		if !ok {
			return next, false
		}
		same := len(n) == len(o)
		for i := range min(len(n), len(o)) {
			kept, eq := share(n[i], o[i])
			if eq {
				n[i] = kept
			} else {
				same = false
			}
		}
		if same {
			return o, true
		}
		return n, false
	}
	switch old.(type) {
	case map[string]any, []any:
		return next, false
	}
	return old, next == old
}

// metadataOf returns the metadata map of an object, made if there is none.
func metadataOf(m map[string]any) map[string]any {
	meta, ok := m["metadata"].(map[string]any)
	if !ok {
		meta = map[string]any{}
		m["metadata"] = meta
	}
	return meta
}

// decodeMeta returns an object's metadata in typed form.
func decodeMeta(m map[string]any) (*metav1.ObjectMeta, error) {
	out := &metav1.ObjectMeta{}
	meta, ok := m["metadata"]
	if !ok || meta == nil {
		return out, nil
	}
	mm, ok := meta.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("metadata: expected an object, got %T", meta)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(mm, out); err != nil {
		return nil, err
	}
	return out, nil
}

// encodeMeta replaces an object's metadata.
func encodeMeta(m map[string]any, meta *metav1.ObjectMeta) error {
	mm, err := runtime.DefaultUnstructuredConverter.ToUnstructured(meta)
	if err != nil {
		return err
	}
	if mm["creationTimestamp"] == nil {
		delete(mm, "creationTimestamp")
	}
	m["metadata"] = mm
	return nil
}
