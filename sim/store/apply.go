package store

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/yaml"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
)

// applyPatch does a server-side apply, which creates the object if need be.
func (s *Store) applyPatch(w *write, data []byte) (*Object, error) {
	k := w.kind
	if w.manager == "" {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "PatchOptions"}, "", field.ErrorList{
			field.Required(field.NewPath("fieldManager"), "is required for apply patch")})
	}
	var raw map[string]any
	if err := yaml.Unmarshal(data, &raw); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
	}
	n, err := normalize(raw)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	in := &unstructured.Unstructured{Object: n.(map[string]any)}
	if in.GroupVersionKind() != k.gvk {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the kind of the patch (%s) does not match the kind of the request (%s)",
			in.GroupVersionKind(), k.gvk))
	}
	if len(in.GetManagedFields()) > 0 {
		return nil, apierrors.NewBadRequest("metadata.managedFields must be nil")
	}
	if in.GetName() == "" {
		in.SetName(w.req.Name)
	}
	if k.namespaced && in.GetNamespace() == "" {
		in.SetNamespace(w.req.Namespace)
	}
	if in.GetName() != w.req.Name || in.GetNamespace() != w.req.Namespace {
		return nil, apierrors.NewBadRequest("the name of the object does not match the name on the request")
	}
	meta := metadataOf(in.Object)
	for _, f := range []string{"creationTimestamp", "managedFields"} {
		if v, ok := meta[f]; ok && v == nil {
			delete(meta, f)
		}
	}
	fm, err := s.fieldManager(k, w.req.Subresource)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	old := s.lookup(k, w.req.Namespace, w.req.Name)
	live := &unstructured.Unstructured{Object: map[string]any{"apiVersion": k.gvk.GroupVersion().String(), "kind": k.gvk.Kind}}
	switch {
	case old != nil:
		live = old.u.DeepCopy()
	case w.req.Subresource != "":
		return nil, k.notFound(w.req.Name)
	case in.GetUID() != "":
		return nil, apierrors.NewConflict(k.resource, w.req.Name,
			fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", in.GetUID()))
	}
	merged, err := fm.Apply(live, in, w.manager, w.force)
	if err != nil {
		if apierrors.ReasonForError(err) != metav1.StatusReasonUnknown {
			return nil, err
		}
		return nil, serverError(err.Error())
	}
	next := merged.(*unstructured.Unstructured)
	s.datedFields(next, old)
	m, err := normalize(next.Object)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	out := m.(map[string]any)
	if old == nil {
		delete(metadataOf(out), "resourceVersion")
		return s.create(w, out)
	}
	if metadataOf(out)["resourceVersion"] == nil {
		metadataOf(out)["resourceVersion"] = strconv.FormatInt(old.revision, 10)
	}
	return s.update(w, out)
}

// track keeps the managed fields of an object that was applied before, when it is written in another way. Objects that
// were never applied carry none.
func (s *Store) track(w *write, old *Object, in map[string]any) (map[string]any, error) {
	if w.req.Verb == "apply" {
		return in, nil
	}
	if metadataOf(old.u.Object)["managedFields"] == nil {
		delete(metadataOf(in), "managedFields")
		return in, nil
	}
	fm, err := s.fieldManager(w.kind, w.req.Subresource)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if w.req.Subresource == "" {
		metadataOf(in)["creationTimestamp"] = metadataOf(old.u.Object)["creationTimestamp"]
	}
	next := fm.UpdateNoErrors(old.u.DeepCopy(), &unstructured.Unstructured{Object: in}, w.manager).(*unstructured.Unstructured)
	s.datedFields(next, old)
	return next.Object, nil
}

// datedFields gives the managed fields that changed the store's time, because the library takes the wall clock's.
func (s *Store) datedFields(next *unstructured.Unstructured, old *Object) {
	entries := next.GetManagedFields()
	if len(entries) == 0 {
		return
	}
	var before []metav1.ManagedFieldsEntry
	if old != nil {
		before = old.u.GetManagedFields()
	}
	now := s.now()
	for i := range entries {
		e := &entries[i]
		e.Time = &now
		for _, b := range before {
			if b.Manager == e.Manager && b.Operation == e.Operation && b.APIVersion == e.APIVersion && b.Subresource == e.Subresource &&
				b.FieldsV1 != nil && e.FieldsV1 != nil && bytes.Equal(b.FieldsV1.GetRawBytes(), e.FieldsV1.GetRawBytes()) {
				e.Time = b.Time
			}
		}
	}
	slices.SortStableFunc(entries, func(a, b metav1.ManagedFieldsEntry) int {
		seconds := func(e metav1.ManagedFieldsEntry) int64 {
			if e.Time == nil {
				return 0
			}
			return e.Time.Unix()
		}
		return cmp.Or(cmp.Compare(a.Operation, b.Operation), cmp.Compare(seconds(a), seconds(b)), cmp.Compare(a.Manager, b.Manager),
			cmp.Compare(a.APIVersion, b.APIVersion), cmp.Compare(a.Subresource, b.Subresource))
	})
	next.SetManagedFields(entries)
}

// fieldManager returns the library's field manager for a kind and subresource.
func (s *Store) fieldManager(k *kind, subresource string) (*managedfields.FieldManager, error) {
	converter, err := k.typeConverter(s.scheme)
	if err != nil {
		return nil, err
	}
	reset := fieldpath.NewSet()
	switch {
	case subresource == "status":
		reset = fieldpath.NewSet(fieldpath.MakePathOrDie("metadata"), fieldpath.MakePathOrDie("spec"))
	case k.status:
		reset = fieldpath.NewSet(fieldpath.MakePathOrDie("status"))
	}
	filters := fieldpath.NewExcludeFilterSetMap(map[fieldpath.APIVersion]*fieldpath.Set{
		fieldpath.APIVersion(k.gvk.GroupVersion().String()): reset,
	})
	gv := k.gvk.GroupVersion()
	if k.crd != nil {
		return managedfields.NewDefaultCRDFieldManager(converter, unconverted{}, k, unstructuredCreater{}, k.gvk, gv, subresource, filters)
	}
	return managedfields.NewDefaultFieldManager(converter, unconverted{}, k, unstructuredCreater{}, k.gvk, gv, subresource, filters)
}

// Default makes a kind the field manager's defaulter.
func (k *kind) Default(obj runtime.Object) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok || k.crd == nil {
		return
	}
	if c, err := k.crd.compiled(); err == nil {
		defaulting.Default(u.Object, c.structural)
	}
}

// unconverted is the conversion between the one version that there is.
type unconverted struct{}

func (unconverted) Convert(in, out, _ any) error {
	return fmt.Errorf("convert %T to %T: not supported", in, out)
}

func (unconverted) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	return in, nil
}

func (unconverted) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

type unstructuredCreater struct{}

func (unstructuredCreater) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(gvk)
	return u, nil
}

// converters caches the type converters of built-in kinds, which depend on nothing but the Go type.
var converters sync.Map // reflect.Type -> func() (managedfields.TypeConverter, error)

// typeConverter returns the kind's schema as structured merge wants it.
func (k *kind) typeConverter(scheme *runtime.Scheme) (managedfields.TypeConverter, error) {
	if k.crd != nil {
		c, err := k.crd.compiled()
		if err != nil {
			return nil, err
		}
		c.converterOnce.Do(func() {
			root := c.structural.ToKubeOpenAPI()
			if root.Properties == nil {
				c.converter = managedfields.NewDeducedTypeConverter()
				return
			}
			root.Properties["apiVersion"], root.Properties["kind"] = *spec.StringProperty(), *spec.StringProperty()
			root.Properties["metadata"] = openAPI(reflect.TypeFor[metav1.ObjectMeta](), nil)
			c.converter, c.converterErr = newConverter(k.gvk, root)
		})
		return c.converter, c.converterErr
	}
	t, err := newTyped(scheme, k.gvk)
	if err != nil || k.gvk == crdKind {
		return managedfields.NewDeducedTypeConverter(), nil
	}
	rt := reflect.TypeOf(t).Elem()
	cached, _ := converters.LoadOrStore(rt, sync.OnceValues(func() (managedfields.TypeConverter, error) {
		root := openAPI(rt, nil)
		return newConverter(k.gvk, &root)
	}))
	return cached.(func() (managedfields.TypeConverter, error))()
}

func newConverter(gvk schema.GroupVersionKind, root *spec.Schema) (managedfields.TypeConverter, error) {
	root.VendorExtensible.AddExtension("x-kubernetes-group-version-kind", []any{map[string]any{
		"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind,
	}})
	return managedfields.NewTypeConverter(map[string]*spec.Schema{gvk.GroupVersion().String() + "." + gvk.Kind: root}, false)
}

var jsonMarshaler = reflect.TypeFor[json.Marshaler]()

// openAPI derives a schema from a Go type of the Kubernetes API: the merge keys of its lists stand in the struct tags.
// outer holds the types around this one; a type within itself has no schema.
func openAPI(t reflect.Type, outer []reflect.Type) spec.Schema {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	untyped := spec.Schema{VendorExtensible: spec.VendorExtensible{Extensions: spec.Extensions{"x-kubernetes-preserve-unknown-fields": true}}}
	if t.Implements(jsonMarshaler) || reflect.PointerTo(t).Implements(jsonMarshaler) {
		switch t.Name() {
		case "Time", "MicroTime", "Duration":
			return *spec.StringProperty()
		case "IntOrString", "Quantity":
			return spec.Schema{VendorExtensible: spec.VendorExtensible{Extensions: spec.Extensions{"x-kubernetes-int-or-string": true}}}
		}
		return untyped
	}
	switch t.Kind() {
	case reflect.String:
		return *spec.StringProperty()
	case reflect.Bool:
		return *spec.BooleanProperty()
	case reflect.Float32, reflect.Float64:
		return spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"number"}}}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"integer"}}}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return *spec.StringProperty()
		}
		items := openAPI(t.Elem(), outer)
		return *spec.ArrayProperty(&items)
	case reflect.Map:
		values := openAPI(t.Elem(), outer)
		return *spec.MapProperty(&values)
	case reflect.Struct:
		if slices.Contains(outer, t) {
			return untyped
		}
		out := spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}, Properties: map[string]spec.Schema{}}}
		addFields(&out, t, append(slices.Clone(outer), t))
		return out
	}
	return untyped
}

func addFields(out *spec.Schema, t reflect.Type, outer []reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" && (f.Anonymous || strings.Contains(options, "inline")) {
			ft := f.Type
			for ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			if ft.Kind() == reflect.Struct {
				addFields(out, ft, outer)
			}
			continue
		}
		p := openAPI(f.Type, outer)
		if f.Type.Kind() == reflect.Slice && p.Items != nil {
			key := f.Tag.Get("patchMergeKey")
			switch {
			case !strings.Contains(f.Tag.Get("patchStrategy"), "merge"):
				p.AddExtension("x-kubernetes-list-type", "atomic")
			case key == "":
				p.AddExtension("x-kubernetes-list-type", "set")
			default:
				keys := []any{key}
				if key == "containerPort" || t.Name() == "ServiceSpec" && key == "port" {
					keys = append(keys, "protocol")
					protocol := p.Items.Schema.Properties["protocol"]
					protocol.Default = "TCP"
					p.Items.Schema.Properties["protocol"] = protocol
				}
				p.AddExtension("x-kubernetes-list-type", "map")
				p.AddExtension("x-kubernetes-list-map-keys", keys)
			}
		}
		if f.Type.Kind() == reflect.Pointer && f.Type.Elem().Name() == "LabelSelector" || f.Type.Name() == "NodeSelectorTerm" {
			p.AddExtension("x-kubernetes-map-type", "atomic")
		}
		out.Properties[name] = p
	}
}
