package store

import (
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// generationRule says when metadata.generation grows.
type generationRule int

const (
	generationNever  generationRule = iota
	generationSpec                  // with .spec
	generationDeploy                // with .spec or the annotations
	generationAll                   // with anything but metadata (and status, where it is a subresource)
)

// kind is a served kind and its data.
type kind struct {
	gvk           schema.GroupVersionKind
	plural        string
	singular      string
	resource      schema.GroupResource
	namespaced    bool
	status        bool
	scale         *scalePaths
	generation    generationRule
	unconditional bool // an update without resourceVersion is fine
	createOnPut   bool
	validName     apivalidation.ValidateNameFunc
	crd           *definition // nil for a built-in kind
	hidden        bool        // not served

	data *data
}

// data is what the store holds of a kind. It outlives the kind's definition.
type data struct {
	versions []version // never empty, oldest first
	log      []*Change
	// compacted counts the changes whose former states have given up their decoded form.
	compacted int
}

func (k *kind) key(namespace, name string) string {
	if !k.namespaced {
		return name
	}
	return namespace + "/" + name
}

// scalePaths are the fields behind a scale subresource.
type scalePaths struct {
	spec, status, selector []string
}

var workloadScale = &scalePaths{
	spec: []string{"spec", "replicas"}, status: []string{"status", "replicas"}, selector: []string{"spec", "selector"},
}

// builtin is a row of the table of built-in kinds.
type builtin struct {
	group, version, name, plural string
	namespaced                   bool
	status                       bool
	scale                        *scalePaths
	generation                   generationRule
	conditional                  bool // an update needs a resourceVersion
	createOnPut                  bool
	validName                    apivalidation.ValidateNameFunc
}

func (b builtin) kind() *kind {
	valid := b.validName
	if valid == nil {
		valid = apivalidation.NameIsDNSSubdomain
	}
	return &kind{
		gvk:        schema.GroupVersionKind{Group: b.group, Version: b.version, Kind: b.name},
		plural:     b.plural,
		singular:   strings.ToLower(b.name),
		namespaced: b.namespaced, status: b.status, scale: b.scale, generation: b.generation,
		unconditional: !b.conditional, createOnPut: b.createOnPut, validName: valid,
	}
}

// segmentName is the rule for kinds whose names only have to be path segments.
func segmentName(name string, _ bool) []string {
	return path.IsValidPathSegmentName(name)
}

const rbac = "rbac.authorization.k8s.io"

// builtins is the table of built-in kinds: scope, subresources, generation and update rule of each.
var builtins = []builtin{
	{version: "v1", name: "Namespace", plural: "namespaces", status: true, validName: apivalidation.NameIsDNSLabel},
	{version: "v1", name: "Node", plural: "nodes", status: true},
	{version: "v1", name: "Pod", plural: "pods", namespaced: true, status: true, generation: generationSpec},
	{version: "v1", name: "ConfigMap", plural: "configmaps", namespaced: true},
	{version: "v1", name: "Secret", plural: "secrets", namespaced: true},
	{version: "v1", name: "Event", plural: "events", namespaced: true, createOnPut: true, validName: segmentName},
	{version: "v1", name: "Service", plural: "services", namespaced: true, status: true, validName: apivalidation.NameIsDNS1035Label},
	{version: "v1", name: "ServiceAccount", plural: "serviceaccounts", namespaced: true},
	{group: "events.k8s.io", version: "v1", name: "Event", plural: "events", namespaced: true, createOnPut: true, validName: segmentName},
	{group: "apps", version: "v1", name: "Deployment", plural: "deployments", namespaced: true, status: true, scale: workloadScale, generation: generationDeploy},
	{group: "apps", version: "v1", name: "ReplicaSet", plural: "replicasets", namespaced: true, status: true, scale: workloadScale, generation: generationSpec},
	{group: "apps", version: "v1", name: "DaemonSet", plural: "daemonsets", namespaced: true, status: true, generation: generationSpec},
	{group: "batch", version: "v1", name: "Job", plural: "jobs", namespaced: true, status: true, generation: generationSpec},
	{group: "policy", version: "v1", name: "PodDisruptionBudget", plural: "poddisruptionbudgets", namespaced: true, status: true, generation: generationSpec, conditional: true, validName: segmentName},
	{group: "coordination.k8s.io", version: "v1", name: "Lease", plural: "leases", namespaced: true, conditional: true, createOnPut: true},
	{group: rbac, version: "v1", name: "Role", plural: "roles", namespaced: true, createOnPut: true, validName: segmentName},
	{group: rbac, version: "v1", name: "RoleBinding", plural: "rolebindings", namespaced: true, createOnPut: true, validName: segmentName},
	{group: rbac, version: "v1", name: "ClusterRole", plural: "clusterroles", createOnPut: true, validName: segmentName},
	{group: rbac, version: "v1", name: "ClusterRoleBinding", plural: "clusterrolebindings", createOnPut: true, validName: segmentName},
	{group: apiextensionsv1.GroupName, version: "v1", name: "CustomResourceDefinition", plural: "customresourcedefinitions", status: true, generation: generationSpec, conditional: true},
}

var (
	namespaceKind = schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}
	podKind       = schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	crdKind       = apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition")
)

// restMapper is a snapshot of the kinds that are served.
type restMapper struct{ *meta.DefaultRESTMapper }

func newRESTMapper(kinds map[schema.GroupVersionKind]*kind) *restMapper {
	var sorted []*kind
	var versions []schema.GroupVersion
	for _, k := range kinds {
		if !k.hidden {
			sorted = append(sorted, k)
		}
	}
	slices.SortFunc(sorted, func(a, b *kind) int { return strings.Compare(a.gvk.String(), b.gvk.String()) })
	for _, k := range sorted {
		if gv := k.gvk.GroupVersion(); !slices.Contains(versions, gv) {
			versions = append(versions, gv)
		}
	}
	m := meta.NewDefaultRESTMapper(versions)
	for _, k := range sorted {
		scope := meta.RESTScopeRoot
		if k.namespaced {
			scope = meta.RESTScopeNamespace
		}
		gv := k.gvk.GroupVersion()
		m.AddSpecific(k.gvk, gv.WithResource(k.plural), gv.WithResource(k.singular), scope)
	}
	return &restMapper{m}
}

// liveMapper is a RESTMapper that follows the installation of CustomResourceDefinitions.
type liveMapper struct{ s *Store }

func (l liveMapper) now() *restMapper {
	l.s.mu.RLock()
	defer l.s.mu.RUnlock()
	return l.s.mapper
}

func (l liveMapper) KindFor(r schema.GroupVersionResource) (schema.GroupVersionKind, error) {
	return l.now().KindFor(r)
}

func (l liveMapper) KindsFor(r schema.GroupVersionResource) ([]schema.GroupVersionKind, error) {
	return l.now().KindsFor(r)
}

func (l liveMapper) ResourceFor(r schema.GroupVersionResource) (schema.GroupVersionResource, error) {
	return l.now().ResourceFor(r)
}

func (l liveMapper) ResourcesFor(r schema.GroupVersionResource) ([]schema.GroupVersionResource, error) {
	return l.now().ResourcesFor(r)
}

func (l liveMapper) RESTMapping(gk schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	return l.now().RESTMapping(gk, versions...)
}

func (l liveMapper) RESTMappings(gk schema.GroupKind, versions ...string) ([]*meta.RESTMapping, error) {
	return l.now().RESTMappings(gk, versions...)
}

func (l liveMapper) ResourceSingularizer(resource string) (string, error) {
	return l.now().ResourceSingularizer(resource)
}
