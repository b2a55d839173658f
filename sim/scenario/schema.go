package scenario

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
)

// SchemaID is the identity of the schema; nothing is fetched from there.
const SchemaID = "https://layersim.dev/scenario.schema.json"

// Schema returns a JSON schema (draft 2020-12) of scenarios and topologies, for editors: it completes and explains
// words and finds misspelt ones. It knows less than the reader: not whether a name exists, a glob or an expression is good,
// or two fields contradict each other. It takes kinds only as they are written in this manual or in the API, while the
// reader takes any case.
func Schema() ([]byte, error) {
	root := &jsonschema.Schema{
		Schema: "https://json-schema.org/draft/2020-12/schema", ID: SchemaID, Title: "layersim scenario",
		If:   &jsonschema.Schema{Properties: map[string]*jsonschema.Schema{"kind": constant1("Cluster")}, Required: []string{"kind"}},
		Then: def("topology"), Else: def("scenario"),
		Defs: map[string]*jsonschema.Schema{
			"scenario": scenarioSchema(), "topology": topologySchema(), "step": stepSchema(), "cluster": clusterSchema(),
			"expectations": some(def("expectation")), "expectation": expectationSchema(),
			"rules":   some(&jsonschema.Schema{Type: "object", MinProperties: ptr(1), AdditionalProperties: def("rule")}),
			"rule":    {AllOf: []*jsonschema.Schema{def("expectation")}, AnyOf: beside(ptr(1))},
			"release": releaseSchema(),
			"check":   checkSchema(), "fault": faultSchema(), "object": objectSchema(),
			"duration": {Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(h|m|s|ms))+$|` + variable},
			"count":    {AnyOf: []*jsonschema.Schema{{Type: "integer", Minimum: ptr(0.0)}, {Type: "string", Pattern: "^" + variable + "$"}}},
			"bool":     {AnyOf: []*jsonschema.Schema{{Type: "boolean"}, {Type: "string", Pattern: "^" + variable + "$"}}},
			"amount":   {AnyOf: []*jsonschema.Schema{{Type: "integer", Minimum: ptr(0.0)}, {Type: "string", Pattern: "^[0-9]+%$|^" + variable + "$"}}},
			"secrets":  secretsSchema(),
		},
	}
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the schema of scenarios: %w", err)
	}
	return append(out, '\n'), nil
}

// variable is a variable of variants, which may stand for any scalar.
const variable = `\$\([A-Za-z][A-Za-z0-9_-]*\)`

func ptr[T any](v T) *T { return &v }

func def(name string) *jsonschema.Schema { return &jsonschema.Schema{Ref: "#/$defs/" + name} }

func constant1(value any) *jsonschema.Schema { return &jsonschema.Schema{Const: &value} }

func nothing() *jsonschema.Schema { return &jsonschema.Schema{Not: &jsonschema.Schema{}} }

func text() *jsonschema.Schema { return &jsonschema.Schema{Type: "string"} }

func scalar() *jsonschema.Schema {
	return &jsonschema.Schema{Types: []string{"string", "number", "boolean", "null"}}
}

// enum is one of some words, or a variable.
func enum(values ...string) *jsonschema.Schema {
	s := &jsonschema.Schema{}
	for _, v := range values {
		s.Enum = append(s.Enum, v)
	}
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{s, {Type: "string", Pattern: variable}}}
}

// some is one, or a list of at least one.
func some(item *jsonschema.Schema) *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{item, {Type: "array", Items: item, MinItems: ptr(1)}}}
}

// mapOf is a mapping from any names to values.
func mapOf(value *jsonschema.Schema) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "object", MinProperties: ptr(1), AdditionalProperties: value}
}

// orNull allows null, which removes or restores.
func orNull(value *jsonschema.Schema) *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{value, {Type: "null"}}}
}

// fieldsOf is a mapping with known fields, explained by the words of a section.
func fieldsOf(section string, fields map[string]*jsonschema.Schema) *jsonschema.Schema {
	for _, w := range words {
		if s := fields[w.Name]; s != nil && w.Section == section {
			fields[w.Name] = explained(w, s)
		}
	}
	return &jsonschema.Schema{Type: "object", Properties: fields, AdditionalProperties: nothing()}
}

func explained(w Word, s *jsonschema.Schema) *jsonschema.Schema {
	described := *s
	described.Description = w.Short + "\n\n" + w.Grammar
	if w.Notes != "" {
		described.Description += "\n\n" + w.Notes
	}
	return &described
}

// kindPattern matches the spellings of some kinds, all where none is named.
func kindPattern(names ...string) string {
	var spellings []string
	for _, k := range kinds {
		if len(names) == 0 || slices.Contains(names, k.Kind) {
			spellings = append(spellings, k.Kind, strings.ToLower(k.Kind))
			spellings = append(spellings, k.Aliases...)
		}
	}
	return "(" + strings.Join(spellings, "|") + ")"
}

// releaseSchema takes releases as text and as numbers, of which it can't tell 4.20 from 4.2.
func releaseSchema() *jsonschema.Schema {
	s := enum(Releases...)
	for _, release := range Releases {
		if number, err := strconv.ParseFloat(release, 64); err == nil {
			s.AnyOf[0].Enum = append(s.AnyOf[0].Enum, number)
		}
	}
	return s
}

// beside are the forms of a mapping with at least one field, and at most so many where a bound is given, beside since and
// until.
func beside(most *int) []*jsonschema.Schema {
	var forms []*jsonschema.Schema
	for _, given := range [][]string{nil, {inSince}, {inUntil}, {inSince, inUntil}} {
		s := &jsonschema.Schema{Required: given, MinProperties: ptr(1 + len(given)), Properties: map[string]*jsonschema.Schema{}}
		if most != nil {
			s.MaxProperties = ptr(*most + len(given))
		}
		for _, field := range []string{inSince, inUntil} {
			if !slices.Contains(given, field) {
				s.Properties[field] = nothing()
			}
		}
		forms = append(forms, s)
	}
	return forms
}

// byObject is a mapping from "KIND NAME" to values.
func byObject(value *jsonschema.Schema, kindNames ...string) *jsonschema.Schema {
	return &jsonschema.Schema{
		Type: "object", MinProperties: ptr(1), AdditionalProperties: nothing(),
		PatternProperties: map[string]*jsonschema.Schema{"^(" + kindPattern(kindNames...) + ` \S+|.*` + variable + `.*)$`: value},
	}
}

func scenarioSchema() *jsonschema.Schema {
	s := fieldsOf(SectionScenario, map[string]*jsonschema.Schema{
		"kind": constant1("Scenario"), "name": {Type: "string", Pattern: isName.String()}, "area": text(), "shows": text(),
		"source": mapOf(some(text())), "needs": some(text()), "seed": {Type: "integer", Minimum: ptr(1.0)},
		"cluster":  {AnyOf: []*jsonschema.Schema{text(), def("cluster")}},
		"variants": {Type: "object", MinProperties: ptr(1), PropertyNames: &jsonschema.Schema{Pattern: isName.String()}, AdditionalProperties: mapOf(scalar())},
		"steps":    {Type: "array", MinItems: ptr(1), Items: &jsonschema.Schema{Type: "object", MinProperties: ptr(1), MaxProperties: ptr(1), AdditionalProperties: def("step")}},
		inNever:    def("rules"), inAlways: def("rules"), inSince: def("release"), inUntil: def("release"),
	})
	s.Required = []string{"kind", "name", "shows", "cluster", "steps"}
	return s
}

func stepSchema() *jsonschema.Schema {
	refs := some(&jsonschema.Schema{Type: "string", Pattern: "^" + kindPattern() + ` \S+$|` + variable})
	names := some(text())
	objects := some(&jsonschema.Schema{AnyOf: []*jsonschema.Schema{text(), def("object")}})
	components := some(enum(Components...))
	labels := byObject(mapOf(scalar()))
	actions := map[string]*jsonschema.Schema{
		"annotate": labels, "apply": objects, "cordon": names, "create": objects, "delete": refs, "evict": names, "fault": some(def("fault")),
		"crash": {Type: "object", Required: []string{"component"}, AdditionalProperties: nothing(), Properties: map[string]*jsonschema.Schema{
			"component": enum(Components...), "when": enum("before", "after"), "write": def("count"), "verb": enum(verbs...), "kind": text(),
		}},
		"heal": names, "image": {Type: "object", MinProperties: ptr(1), AdditionalProperties: nothing(), Properties: map[string]*jsonschema.Schema{
			"delete": names, "quota": mapOf(scalar()),
		}},
		"label": labels, "patch": byObject(mapOf(&jsonschema.Schema{})), "pause": names, "restart": components, "restore": names,
		"revoke": names, "rotate": names, "scale": byObject(def("count"), "MachineSet", "Deployment", "ReplicaSet"),
		"secret": def("secrets"), "start": components, "stop": components, "uncordon": names, "unpause": names,
		"wait": def("duration"), "write": mapOf(mapOf(scalar())),
	}
	fields := map[string]*jsonschema.Schema{
		"within": def("duration"), "for": def("duration"), inExpect: def("expectations"), inOrder: def("expectations"),
		inSettles: def("expectations"), inEver: def("expectations"), inNever: def("rules"), inAlways: def("rules"),
		inSince: def("release"), inUntil: def("release"),
	}
	s := fieldsOf(SectionStep, fields)
	for _, w := range words {
		if action := actions[w.Name]; action != nil && w.Section == SectionAction {
			s.Properties[w.Name] = explained(w, action)
		}
	}
	s.MinProperties = ptr(1)
	return s
}

func expectationSchema() *jsonschema.Schema {
	count := def("count")
	machine := &jsonschema.Schema{Type: "object", MinProperties: ptr(1), AdditionalProperties: nothing(), Properties: map[string]*jsonschema.Schema{
		"booted": text(), "packages": some(text()), "without": some(text()), "rpm-ostree status": some(text()), "count": count,
	}}
	log := &jsonschema.Schema{AnyOf: []*jsonschema.Schema{text(), {
		Type: "object", Required: []string{"text"}, AdditionalProperties: nothing(),
		Properties: map[string]*jsonschema.Schema{"text": text(), "container": text(), "count": count},
	}}}
	s := fieldsOf(SectionExpectation, map[string]*jsonschema.Schema{
		"boots": mapOf(count), "true": text(), inSince: def("release"), inUntil: def("release"),
		"registry": {Type: "object", AdditionalProperties: nothing(), Properties: map[string]*jsonschema.Schema{
			"method": enum(methods...), "path": text(), "account": text(), "caller": text(), "status": count, "count": count,
		}},
	})
	s.AnyOf = beside(nil)
	// The kind Machine is written in the plural here: machine is the machine below a Node.
	objects := strings.ReplaceAll(kindPattern(), "|Machine|machine|", "|")
	s.PatternProperties = map[string]*jsonschema.Schema{
		"^" + objects + ` \S+$`: orNull(def("check")), `^machine \S+$`: machine, `^log \S+$`: log,
		variable: {},
	}
	for _, w := range words {
		if w.Section == SectionExpectation && w.named {
			for pattern, value := range s.PatternProperties {
				if strings.HasPrefix(pattern, "^"+w.Name+" ") {
					s.PatternProperties[pattern] = explained(w, value)
				}
			}
		}
	}
	return s
}

func checkSchema() *jsonschema.Schema {
	count := def("count")
	condition := &jsonschema.Schema{AnyOf: []*jsonschema.Schema{text(), {
		Type: "object", Required: []string{"type"}, AdditionalProperties: nothing(),
		Properties: map[string]*jsonschema.Schema{"type": text(), "status": scalar(), "reason": text(), "message": text()},
	}}}
	return fieldsOf(SectionCheck, map[string]*jsonschema.Schema{
		"all": def("bool"), "apart": some(def("duration")), "columns": mapOf(scalar()), "condition": some(condition), "count": count,
		"degraded": count, "exists": def("bool"), "machines": count, "matches": mapOf(&jsonschema.Schema{}), "phase": text(),
		"ready": count, "row": {AnyOf: []*jsonschema.Schema{text(), {Type: "array", Items: scalar()}}}, "unavailable": count,
		"updated": count, "where": text(),
	})
}

func faultSchema() *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "object", Required: []string{"on", "do"}, Properties: map[string]*jsonschema.Schema{
		"on": enum(placeNames()...), "name": text(),
	}}
	aims := map[string]*jsonschema.Schema{
		"verb": enum(append([]string{"get", "list"}, verbs...)...), "when": enum("before", "after"), "method": enum(methods...),
	}
	for _, p := range places {
		fields := map[string]*jsonschema.Schema{
			"name": text(), "on": text(), "do": enum(p.does...), "skip": def("count"), "times": def("count"), "duration": def("duration"),
		}
		for _, aim := range p.aims {
			fields[aim] = text()
			if known := aims[aim]; known != nil {
				fields[aim] = known
			}
		}
		if p.phases != nil {
			fields["phase"] = enum(p.phases...)
		}
		s.AllOf = append(s.AllOf, &jsonschema.Schema{
			If:   &jsonschema.Schema{Properties: map[string]*jsonschema.Schema{"on": constant1(p.name)}, Required: []string{"on"}},
			Then: &jsonschema.Schema{Description: p.one, Properties: fields, AdditionalProperties: nothing()},
		})
	}
	return s
}

func objectSchema() *jsonschema.Schema {
	var names []any
	for _, name := range kindNames() {
		names = append(names, name)
	}
	return &jsonschema.Schema{
		Type: "object", Required: []string{"apiVersion", "kind", "metadata"},
		Properties: map[string]*jsonschema.Schema{"apiVersion": text(), "kind": {Enum: names}, "metadata": {Type: "object"}},
	}
}

func secretsSchema() *jsonschema.Schema {
	return mapOf(orNull(&jsonschema.Schema{AnyOf: []*jsonschema.Schema{text(), {
		Type: "object", Required: []string{"account"}, AdditionalProperties: nothing(),
		Properties: map[string]*jsonschema.Schema{"account": text(), "host": text()},
	}}}))
}

// clusterParts are the schemas of a cluster's fields.
func clusterParts() map[string]*jsonschema.Schema {
	part := func(fields map[string]*jsonschema.Schema) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "object", AdditionalProperties: orNull(&jsonschema.Schema{
			Type: "object", Properties: fields, AdditionalProperties: nothing(),
		})}
	}
	return map[string]*jsonschema.Schema{
		"accounts": part(map[string]*jsonschema.Schema{"pull": some(text()), "push": some(text())}),
		"builders": def("count"), "controllers": def("count"),
		"machineSets": part(map[string]*jsonschema.Schema{"replicas": def("count"), "roles": some(text()), "zone": text()}),
		"nodes":       part(map[string]*jsonschema.Schema{"count": def("count"), "roles": some(text()), "zone": text()}),
		"objects":     some(&jsonschema.Schema{AnyOf: []*jsonschema.Schema{text(), def("object")}}),
		"pools":       part(map[string]*jsonschema.Schema{"maxUnavailable": def("amount"), "paused": def("bool")}),
		"secrets":     def("secrets"),
		"workloads":   part(map[string]*jsonschema.Schema{"replicas": def("count"), "minAvailable": def("amount"), "nodeSelector": mapOf(scalar())}),
	}
}

func clusterSchema() *jsonschema.Schema {
	s := fieldsOf(SectionCluster, clusterParts())
	s.Properties["like"] = &jsonschema.Schema{Type: "string", Description: "the topology that the cluster is like"}
	return s
}

func topologySchema() *jsonschema.Schema {
	s := fieldsOf(SectionCluster, clusterParts())
	s.Properties["kind"], s.Properties["name"], s.Properties["shows"] = constant1("Cluster"), text(), text()
	s.Required = []string{"kind", "name"}
	return s
}
