package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	runtimeschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"
)

// definition is the storage version of an installed CustomResourceDefinition.
type definition struct {
	spec       *apiextensionsv1.CustomResourceDefinitionSpec
	version    *apiextensionsv1.CustomResourceDefinitionVersion
	selectable map[string][]string
	scale      *scalePaths

	once   sync.Once
	schema *compiled
	err    error
}

// compiled is what a schema is compiled to. It is immutable.
type compiled struct {
	structural *schema.Structural
	validator  validation.SchemaValidator
	status     validation.SchemaValidator
	cel        *cel.Validator

	converterOnce sync.Once
	converter     managedfields.TypeConverter
	converterErr  error
}

// schemas caches compiled schemas by the hash of their source, because a process that runs many scenarios installs the
// same definitions in each. It never changes an answer, only its cost.
var schemas sync.Map // [sha256.Size]byte -> func() (*compiled, error)

// install registers the kind of a CustomResourceDefinition. The schema is compiled when its first object is written.
func (s *Store) install(o *Object) error {
	crd, ok := o.Typed().(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return apierrors.NewInternalError(fmt.Errorf("customresourcedefinition %s: not decoded", o.name))
	}
	var v *apiextensionsv1.CustomResourceDefinitionVersion
	for i := range crd.Spec.Versions {
		if crd.Spec.Versions[i].Storage {
			v = &crd.Spec.Versions[i]
		}
	}
	if v == nil {
		return nil
	}
	d := &definition{spec: &crd.Spec, version: v, selectable: map[string][]string{}}
	for _, f := range v.SelectableFields {
		p := strings.TrimPrefix(f.JSONPath, ".")
		d.selectable[p] = strings.Split(p, ".")
	}
	k := &kind{
		gvk:        runtimeschema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Spec.Names.Kind},
		plural:     crd.Spec.Names.Plural,
		singular:   crd.Spec.Names.Singular,
		namespaced: crd.Spec.Scope == apiextensionsv1.NamespaceScoped,
		generation: generationAll,
		validName:  apivalidation.NameIsDNSSubdomain,
		crd:        d,
	}
	if sub := v.Subresources; sub != nil {
		k.status = sub.Status != nil
		if sc := sub.Scale; sc != nil {
			path := func(p string) []string { return strings.Split(strings.TrimPrefix(p, "."), ".") }
			d.scale = &scalePaths{spec: path(sc.SpecReplicasPath), status: path(sc.StatusReplicasPath)}
			if sc.LabelSelectorPath != nil {
				d.scale.selector = path(*sc.LabelSelectorPath)
			}
			k.scale = d.scale
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addKind(k)
	return nil
}

// uninstall removes a definition's objects and kind.
func (s *Store) uninstall(w *write, o *Object) error {
	crd, ok := o.Typed().(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return nil
	}
	for _, v := range crd.Spec.Versions {
		gvk := runtimeschema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Spec.Names.Kind}
		k := s.kind(gvk)
		if k == nil {
			continue
		}
		var all []*Object
		s.head(k).objects.Scan(func(_ string, o *Object) bool {
			all = append(all, o)
			return true
		})
		for _, o := range all {
			s.commit(&write{req: w.req, kind: k}, o, nil, nil)
		}
		s.mu.Lock()
		s.addKind(&kind{gvk: gvk, hidden: true})
		s.mu.Unlock()
	}
	return nil
}

// compiled returns the compiled schema, compiling it on first use.
func (d *definition) compiled() (*compiled, error) {
	d.once.Do(func() {
		if d.version.Schema == nil || d.version.Schema.OpenAPIV3Schema == nil {
			d.schema = &compiled{structural: &schema.Structural{Extensions: schema.Extensions{XPreserveUnknownFields: true}}}
			return
		}
		source, err := json.Marshal(d.version.Schema.OpenAPIV3Schema)
		if err != nil {
			d.err = err
			return
		}
		once := sync.OnceValues(func() (*compiled, error) { return compile(d.version.Schema.OpenAPIV3Schema) })
		cached, _ := schemas.LoadOrStore(sha256.Sum256(source), once)
		d.schema, d.err = cached.(func() (*compiled, error))()
	})
	return d.schema, d.err
}

func compile(v1 *apiextensionsv1.JSONSchemaProps) (*compiled, error) {
	props := &apiextensions.JSONSchemaProps{}
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v1, props, nil); err != nil {
		return nil, fmt.Errorf("convert schema: %w", err)
	}
	st, err := schema.NewStructural(props)
	if err != nil {
		return nil, fmt.Errorf("structural schema: %w", err)
	}
	st = st.DeepCopy()
	if err := defaulting.PruneDefaults(st); err != nil {
		return nil, fmt.Errorf("prune defaults: %w", err)
	}
	c := &compiled{structural: st}
	if c.validator, _, err = validation.NewSchemaValidator(props); err != nil {
		return nil, fmt.Errorf("schema validator: %w", err)
	}
	if status, ok := props.Properties["status"]; ok {
		if c.status, _, err = validation.NewSchemaValidator(&status); err != nil {
			return nil, fmt.Errorf("status schema validator: %w", err)
		}
	}
	c.cel = cel.NewValidator(st, true, celconfig.PerCallLimit)
	return c, nil
}

// admit prunes, defaults and validates a custom resource, in place.
func (d *definition) admit(w *write, in map[string]any, old *Object) (map[string]any, field.ErrorList, error) {
	c, err := d.compiled()
	if err != nil {
		return nil, nil, apierrors.NewInternalError(fmt.Errorf("the server could not properly serve the CR schema: %w", err))
	}
	if !w.canonical {
		meta, err := decodeMeta(in)
		if err != nil {
			return nil, nil, apierrors.NewBadRequest(err.Error())
		}
		if err := encodeMeta(in, meta); err != nil {
			return nil, nil, apierrors.NewInternalError(err)
		}
	}
	metadata := in["metadata"]
	if !d.spec.PreserveUnknownFields {
		pruning.Prune(in, c.structural, true)
		defaulting.PruneNonNullableNullsWithoutDefaults(in, c.structural)
	}
	if err := objectmeta.Coerce(nil, in, c.structural, false, false); err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	in["metadata"] = metadata
	defaulting.Default(in, c.structural)
	w.hasRules = c.cel != nil
	var errs field.ErrorList
	if old == nil {
		errs, w.ruleErrors = c.validateCreate(d, in)
	} else {
		errs, w.ruleErrors = c.validateUpdate(d, in, old.u.Object, w.req.Subresource == "status")
	}
	return in, errs, nil
}

func (c *compiled) validateCreate(d *definition, in map[string]any) (errs field.ErrorList, rules int) {
	errs = validation.ValidateCustomResource(nil, in, c.validator)
	errs = append(errs, d.validateScale(in, true)...)
	errs = append(errs, objectmeta.Validate(context.TODO(), nil, in, c.structural, false)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, c.structural, in)...)
	return c.validateRules(errs, in, nil)
}

func (c *compiled) validateUpdate(d *definition, in, old map[string]any, status bool) (errs field.ErrorList, rules int) {
	correlated := common.NewCorrelatedObject(in, old, &model.Structural{Structural: c.structural})
	if status {
		if st, ok := in["status"]; ok && c.status != nil {
			errs = validation.ValidateCustomResourceUpdate(field.NewPath("status"), st, old["status"], c.status,
				validation.WithRatcheting(correlated.Key("status")))
		}
	} else {
		errs = validation.ValidateCustomResourceUpdate(nil, in, old, c.validator, validation.WithRatcheting(correlated))
		errs = append(errs, objectmeta.Validate(context.TODO(), nil, in, c.structural, false)...)
	}
	errs = append(errs, d.validateScale(in, !status)...)
	if lists := listtype.ValidateListSetsAndMaps(nil, c.structural, in); len(lists) > 0 {
		if len(listtype.ValidateListSetsAndMaps(nil, c.structural, old)) == 0 {
			errs = append(errs, lists...)
		}
	}
	return c.validateRules(errs, in, old, cel.WithRatcheting(correlated))
}

// notChecked stands in place of the errors of CEL rules for an object that has others.
var notChecked = field.Invalid(nil, nil,
	"some validation rules were not checked because the object was invalid; correct the existing errors to complete validation")

// blocksRules says whether errors keep the CEL rules from being run.
func blocksRules(errs field.ErrorList) bool {
	return slices.ContainsFunc(errs, func(e *field.Error) bool {
		switch e.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return true
		}
		return false
	})
}

// validateRules runs the CEL rules, unless what was found before would make them fail for no reason of their own. rules
// is the number of errors that they have added.
func (c *compiled) validateRules(errs field.ErrorList, in, old map[string]any, opts ...cel.Option) (all field.ErrorList, rules int) {
	// The schema validator goes through an object's fields in the order of a map.
	slices.SortStableFunc(errs, func(a, b *field.Error) int {
		return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.Error(), b.Error()))
	})
	if c.cel == nil {
		return errs, 0
	}
	if blocksRules(errs) {
		return append(errs, notChecked), 0
	}
	var oldValue any
	if old != nil {
		oldValue = old
	}
	found, _ := c.cel.Validate(context.TODO(), nil, c.structural, in, oldValue, celconfig.RuntimeCELCostBudget, opts...)
	return append(errs, found...), len(found)
}

func (d *definition) validateScale(in map[string]any, spec bool) field.ErrorList {
	if d.scale == nil {
		return nil
	}
	check := func(path []string) *field.Error {
		at := field.NewPath("." + strings.Join(path, ".")) // with a leading dot, as kube-apiserver has it
		n, _, err := unstructured.NestedInt64(in, path...)
		switch {
		case err != nil:
			return field.Invalid(at, n, err.Error())
		case n < 0:
			return field.Invalid(at, n, "should be a non-negative integer")
		case n > math.MaxInt32:
			return field.Invalid(at, n, fmt.Sprintf("should be less than or equal to %v", math.MaxInt32))
		}
		return nil
	}
	var errs field.ErrorList
	if spec {
		if e := check(d.scale.spec); e != nil {
			errs = append(errs, e)
		}
	}
	if e := check(d.scale.status); e != nil {
		errs = append(errs, e)
	}
	return errs
}

// prepareCRD defaults a CustomResourceDefinition, and on creation accepts its names and establishes it, which on a real
// server a controller does a moment later.
func (s *Store) prepareCRD(crd *apiextensionsv1.CustomResourceDefinition, create bool) {
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&crd.Spec)
	if !create {
		return
	}
	now := s.now()
	crd.Status = apiextensionsv1.CustomResourceDefinitionStatus{AcceptedNames: crd.Spec.Names}
	for _, v := range crd.Spec.Versions {
		if v.Storage {
			crd.Status.StoredVersions = append(crd.Status.StoredVersions, v.Name)
		}
	}
	crd.Status.Conditions = []apiextensionsv1.CustomResourceDefinitionCondition{{
		Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue, LastTransitionTime: now,
		Reason: "NoConflicts", Message: "no conflicts found",
	}, {
		Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue, LastTransitionTime: now,
		Reason: "InitialNamesAccepted", Message: "the initial names have been accepted",
	}}
}

func validateCRD(crd *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	var errs field.ErrorList
	if want := crd.Spec.Names.Plural + "." + crd.Spec.Group; crd.Name != want {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), crd.Name, `must be spec.names.plural+"."+spec.group`))
	}
	storage := 0
	for _, v := range crd.Spec.Versions {
		if v.Storage {
			storage++
		}
	}
	if storage != 1 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "versions"), len(crd.Spec.Versions),
			"must have exactly one version marked as storage version"))
	}
	return errs
}
