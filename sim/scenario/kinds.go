package scenario

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	machinev1beta1 "github.com/openshift/api/machine/v1beta1"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/layersim/layersim/controllers/layering"
)

// Kind is a kind of objects that scenarios know.
type Kind struct {
	schema.GroupVersionKind
	// Aliases are the other spellings, in lower case, the plural first. The kind itself in any case is one too.
	Aliases []string
	// Namespaced kinds have a Namespace where a scenario names none; "*" means any.
	Namespaced bool
	Namespace  string
	// Columns are the headers that `oc get` prints, without NAMESPACE.
	Columns []string
	// Conditions are the condition types that the kind has; nil means that they are not fixed.
	Conditions []string
	// Phases are the values of status.phase; nil means that there is none.
	Phases []string
	// object is the Go type, to check field names.
	object reflect.Type
}

// machineAPI is the namespace of Machines and MachineSets.
const machineAPI = "openshift-machine-api"

// kinds is ordered by name.
var kinds = []Kind{
	kind(corev1.SchemeGroupVersion, corev1.ConfigMap{}, layering.Namespace, "configmaps cm", "NAME DATA AGE"),
	kind(mcfgv1.GroupVersion, mcfgv1.ControllerConfig{}, "", "controllerconfigs cc", "NAME AGE"),
	kind(appsv1.SchemeGroupVersion, appsv1.Deployment{}, metav1.NamespaceDefault, "deployments deploy", "NAME READY UP-TO-DATE AVAILABLE AGE"),
	kind(corev1.SchemeGroupVersion, corev1.Event{}, "*", "events ev", "LAST_SEEN TYPE REASON OBJECT MESSAGE"),
	kind(batchv1.SchemeGroupVersion, batchv1.Job{}, layering.Namespace, "jobs", "NAME STATUS COMPLETIONS DURATION AGE").
		conditions("Complete", "Failed", "FailureTarget", "SuccessCriteriaMet", "Suspended"),
	kind(coordinationv1.SchemeGroupVersion, coordinationv1.Lease{}, layering.Namespace, "leases", "NAME HOLDER AGE"),
	kind(machinev1beta1.GroupVersion, machinev1beta1.Machine{}, machineAPI, "machines", "NAME PHASE TYPE REGION ZONE AGE").
		phases("Provisioning", "Provisioned", "Running", "Deleting", "Failed"),
	kind(mcfgv1.GroupVersion, mcfgv1.MachineConfig{}, "", "machineconfigs mc", "NAME GENERATEDBYCONTROLLER IGNITIONVERSION AGE"),
	kind(mcfgv1.GroupVersion, mcfgv1.MachineConfigNode{}, "", "machineconfignodes mcn", "NAME POOLNAME DESIREDCONFIG CURRENTCONFIG UPDATED AGE"),
	kind(mcfgv1.GroupVersion, mcfgv1.MachineConfigPool{}, "", "machineconfigpools mcp mcps pool pools",
		"NAME CONFIG UPDATED UPDATING DEGRADED MACHINECOUNT READYMACHINECOUNT UPDATEDMACHINECOUNT DEGRADEDMACHINECOUNT AGE").
		conditions("Updated", "Updating", "Degraded", "NodeDegraded", "RenderDegraded", "PinnedImageSetsDegraded",
			"BuildPending", "Building", "BuildSuccess", "BuildFailed", layering.ImageBuildDegraded),
	kind(mcfgv1.GroupVersion, mcfgv1.MachineOSBuild{}, "", "machineosbuilds mosb mosbs",
		"NAME PREPARED BUILDING SUCCEEDED INTERRUPTED FAILED AGE").
		conditions("Prepared", "Building", "Succeeded", "Interrupted", "Failed"),
	kind(mcfgv1.GroupVersion, mcfgv1.MachineOSConfig{}, "", "machineosconfigs mosc moscs", "NAME AGE"),
	kind(machinev1beta1.GroupVersion, machinev1beta1.MachineSet{}, machineAPI, "machinesets", "NAME DESIRED CURRENT READY AVAILABLE AGE"),
	kind(corev1.SchemeGroupVersion, corev1.Namespace{}, "", "namespaces ns", "NAME STATUS AGE").
		phases("Active", "Terminating"),
	kind(corev1.SchemeGroupVersion, corev1.Node{}, "", "nodes no", "NAME STATUS ROLES AGE VERSION").
		conditions("Ready", "MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"),
	kind(corev1.SchemeGroupVersion, corev1.Pod{}, layering.Namespace, "pods po", "NAME READY STATUS RESTARTS AGE").
		phases("Pending", "Running", "Succeeded", "Failed", "Unknown"),
	kind(policyv1.SchemeGroupVersion, policyv1.PodDisruptionBudget{}, metav1.NamespaceDefault, "poddisruptionbudgets pdb pdbs",
		"NAME MIN_AVAILABLE MAX_UNAVAILABLE ALLOWED_DISRUPTIONS AGE"),
	kind(appsv1.SchemeGroupVersion, appsv1.ReplicaSet{}, metav1.NamespaceDefault, "replicasets rs", "NAME DESIRED CURRENT READY AGE"),
	kind(corev1.SchemeGroupVersion, corev1.Secret{}, layering.Namespace, "secrets", "NAME TYPE DATA AGE"),
}

// kind makes an entry; _ stands for a blank in a column's header.
func kind(gv schema.GroupVersion, object any, namespace, aliases, columns string) Kind {
	t := reflect.TypeOf(object)
	headers := strings.Fields(columns)
	for i := range headers {
		headers[i] = strings.ReplaceAll(headers[i], "_", " ")
	}
	return Kind{
		GroupVersionKind: gv.WithKind(t.Name()), Aliases: strings.Fields(aliases), Namespaced: namespace != "",
		Namespace: namespace, Columns: headers, object: t,
	}
}

func (k Kind) conditions(types ...string) Kind { k.Conditions = types; return k }
func (k Kind) phases(phases ...string) Kind    { k.Phases = phases; return k }

// Kinds lists the kinds that scenarios know, by name. The list is the caller's own.
func Kinds() []Kind { return slices.Clone(kinds) }

// FindKind returns the kind that a word means: the kind in any case, its plural or a short name.
func FindKind(alias string) (Kind, bool) {
	alias = strings.ToLower(alias)
	for _, k := range kinds {
		if strings.ToLower(k.Kind) == alias || slices.Contains(k.Aliases, alias) {
			return k, true
		}
	}
	return Kind{}, false
}

// KindOf returns the API kind that a word means, and whether its objects live in namespaces.
func KindOf(alias string) (gvk schema.GroupVersionKind, namespaced, ok bool) {
	k, ok := FindKind(alias)
	return k.GroupVersionKind, k.Namespaced, ok
}

// words are all spellings of all kinds, in lower case.
func kindWords() []string {
	var words []string
	for _, k := range kinds {
		words = append(words, strings.ToLower(k.Kind))
		words = append(words, k.Aliases...)
	}
	return words
}

// ref reads "<kind> <name>" or "<kind> <namespace>/<name>".
func (p *problems) ref(field string, n *node) (Ref, Kind, bool) {
	s, ok := p.string(field, n)
	if !ok {
		return Ref{}, Kind{}, false
	}
	words := strings.Fields(s)
	k, known := Kind{}, false
	if len(words) > 0 {
		k, known = FindKind(words[0])
	}
	if len(words) != 2 {
		name := "machineconfigpool layered"
		if known && len(words) == 1 {
			name = strings.ToLower(k.Kind) + " *"
		}
		p.fail(n, field, n.show(), "does not name an object", fmt.Sprintf("a kind and a name, e.g. %q", name))
		return Ref{}, Kind{}, false
	}
	if !known {
		p.fail(n, field, fmt.Sprintf("%q", words[0]), "is not a kind", oneOfKinds(words[0]))
		return Ref{}, Kind{}, false
	}
	if !p.isGlob(field, n, words[1]) {
		return Ref{}, Kind{}, false
	}
	ref := Ref{Kind: k.Kind, Namespace: k.Namespace, Name: words[1]}
	if namespace, name, found := strings.Cut(words[1], "/"); found {
		switch {
		case !k.Namespaced:
			p.fail(n, field, n.show(), "has a namespace, and a "+k.Kind+" lives in none", fmt.Sprintf("%q", words[0]+" "+name))
			return Ref{}, Kind{}, false
		case namespace == "" || name == "" || strings.Contains(name, "/"):
			p.fail(n, field, n.show(), "does not name an object", fmt.Sprintf("%q", words[0]+" namespace/name"))
			return Ref{}, Kind{}, false
		}
		ref.Namespace, ref.Name = namespace, name
	}
	return ref, k, true
}

// oneOfKinds tells which kind could stand instead of an unknown word.
func oneOfKinds(word string) string {
	if near := nearest(word, kindWords()); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return "one of " + strings.Join(kindNames(), ", ")
}

func kindNames() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.Kind
	}
	return names
}

// checkFields reports each key below a mapping that the Go type of the API has no field for, and values of the wrong
// type. Null is allowed everywhere: in a merge patch it removes.
func (p *problems) checkFields(field string, n *node, t reflect.Type, what string) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if n.null() || t.Kind() == reflect.Interface || writesItself(t) {
		return true
	}
	ok := true
	wrong := func(want string) bool {
		p.fail(n, field, n.show(), "is not "+want, "the API has "+want+" here")
		return false
	}
	switch t.Kind() {
	case reflect.Struct:
		if n.kind != mappingNode {
			return wrong("a mapping")
		}
		for i, k := range n.keys {
			ft, names := jsonField(t, k.text)
			if ft == nil {
				p.fail(k, field, fmt.Sprintf("%q", k.text), "is not a field of "+what, oneOf(k.text, names))
				ok = false
				continue
			}
			ok = p.checkFields(k.text, n.values[i], ft, what+"."+k.text) && ok
		}
	case reflect.Map:
		if n.kind != mappingNode {
			return wrong("a mapping")
		}
		for i := range n.keys {
			ok = p.checkFields(n.keys[i].text, n.values[i], t.Elem(), what+"."+n.keys[i].text) && ok
		}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return ok
		}
		if n.kind != sequenceNode {
			return wrong("a list")
		}
		for _, item := range n.values {
			ok = p.checkFields(field, item, t.Elem(), what) && ok
		}
	case reflect.String:
		if _, is := n.value.(string); !is && n.kind == scalarNode {
			p.fail(n, field, n.text, "is not text", fmt.Sprintf("put it in quotes: %q", n.text))
			return false
		} else if !is {
			return wrong("text")
		}
	case reflect.Bool:
		if _, is := n.value.(bool); !is {
			return wrong("true or false")
		}
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint32, reflect.Uint64:
		if _, is := n.value.(int64); !is {
			return wrong("a whole number")
		}
	}
	return ok
}

var (
	jsonReader = reflect.TypeFor[json.Unmarshaler]()
	textReader = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// writesItself says whether a type has its own form in JSON, which its fields don't tell.
func writesItself(t reflect.Type) bool {
	pointer := reflect.PointerTo(t)
	return pointer.Implements(jsonReader) || pointer.Implements(textReader)
}

// jsonField returns the type of a struct's field by its JSON name, or nil and the names that there are.
func jsonField(t reflect.Type, name string) (reflect.Type, []string) {
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported() || tag == "-":
		case f.Anonymous && (tag == "" || strings.Contains(options, "inline")):
			inner := f.Type
			for inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			found, more := jsonField(inner, name)
			if found != nil {
				return found, nil
			}
			names = append(names, more...)
		case tag == name:
			return f.Type, nil
		default:
			names = append(names, tag)
		}
	}
	return nil, names
}

// checkObject reads a whole object: its kind must be known, its fields those of the kind. It fills in the namespace.
func (p *problems) checkObject(field string, n *node) (map[string]any, Kind, bool) {
	if n.kind != mappingNode {
		p.fail(n, field, n.show(), "is not an object", "a mapping with apiVersion, kind and metadata")
		return nil, Kind{}, false
	}
	ok := true
	need := func(parent *node, key, example string) *node {
		v := parent.get(key)
		if v.null() {
			p.fail(parent, field, "the object", "has no "+key, example)
			ok = false
			return nil
		}
		if _, is := v.value.(string); !is && key != "metadata" {
			p.fail(v, key, v.show(), "is not text", example)
			ok = false
			return nil
		}
		return v
	}
	version := need(n, "apiVersion", "e.g. apiVersion: machineconfiguration.openshift.io/v1")
	word := need(n, "kind", "e.g. kind: MachineOSConfig")
	metadata := need(n, "metadata", "metadata with a name")
	if !ok {
		return nil, Kind{}, false
	}
	k, known := FindKind(word.text)
	if !known || k.Kind != word.text {
		instead := oneOf(word.text, kindNames())
		if known {
			instead = fmt.Sprintf("write it as %q", k.Kind)
		}
		p.fail(word, "kind", word.show(), "is not a kind", instead)
		return nil, Kind{}, false
	}
	gv, err := schema.ParseGroupVersion(version.text)
	if err != nil || gv.Group != k.Group {
		p.fail(version, "apiVersion", version.show(), "is not the API of "+k.Kind, k.GroupVersion().String())
		return nil, Kind{}, false
	}
	if metadata.kind != mappingNode {
		p.fail(metadata, "metadata", metadata.show(), "is not a mapping", "metadata with a name")
		return nil, Kind{}, false
	}
	if metadata.get("name").null() && metadata.get("generateName").null() {
		p.fail(metadata, "metadata", "the object", "has no name", "a field name (or generateName)")
		ok = false
	}
	// Another version of the API has other fields, which the server will judge.
	if gv.Version == k.Version {
		ok = p.checkFields(field, n, k.object, k.Kind) && ok
	}
	object, _ := n.data().(map[string]any)
	meta, _ := object["metadata"].(map[string]any)
	if k.Namespaced && metadata.get("namespace").null() {
		meta["namespace"] = strings.ReplaceAll(k.Namespace, "*", metav1.NamespaceDefault)
	}
	return object, k, ok
}
