package scenario

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(SchemaID, parsed); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(SchemaID)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// instances returns the documents of a file as the schema sees them.
func instances(t *testing.T, file string, text []byte) []any {
	t.Helper()
	roots, errs := parseYAML(file, text)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var out []any
	for _, root := range roots {
		data, err := json.Marshal(root.data())
		if err != nil {
			t.Fatal(err)
		}
		instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, instance)
	}
	return out
}

// TestSchemaTakesTheLibrary: what the reader takes, the schema takes.
func TestSchemaTakesTheLibrary(t *testing.T) {
	s := compiledSchema(t)
	checked := 0
	check := func(file string, text []byte) {
		for _, instance := range instances(t, file, text) {
			checked++
			if err := s.Validate(instance); err != nil {
				t.Errorf("%s: %v\n%s", file, err, text)
			}
		}
	}
	for _, w := range words {
		check(w.Section+" "+w.Name, []byte(document(w)))
	}
	good, _ := FindWord("fault")
	for _, text := range []string{
		"never: [{x: {since: 4.20, until: '4.22', pods a: {}}}, {y: {until: '4.19', pods a: {}}}]",
		"expect: {since: main, pods a: {}, pods b: {}}", "expect: [{since: '4.19', until: 4.20, pods a: {}, true: now != now}]",
	} {
		text = strings.Replace(document(good), "fault: {", text+"\n      fault: {", 1)
		if _, err := Parse("testdata/x.yaml", []byte(text)); err != nil {
			t.Error(err)
		}
		check("releases", []byte(text))
	}
	for _, folder := range []string{"../../scenarios", "../../fixtures/clusters"} {
		err := filepath.WalkDir(folder, func(file string, _ os.DirEntry, err error) error {
			if err != nil || filepath.Ext(file) != ".yaml" {
				return err
			}
			text, err := os.ReadFile(file)
			check(file, text)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if checked < len(words)+10 {
		t.Errorf("only %d documents were checked", checked)
	}
}

// TestSchemaRefuses: the schema finds what an editor should underline.
func TestSchemaRefuses(t *testing.T) {
	s := compiledSchema(t)
	good, _ := FindWord("fault")
	for _, change := range [][2]string{
		{"kind: Scenario", "kind: Scenaro"}, {"name: example", "name: Not_A_Name"}, {"shows:", "show:"},
		{"cluster: two-pools", "cluster: {like: two-pools, pols: {}}"}, {"cluster: two-pools", "cluster: {nodes: {a: {cont: 1}}}"},
		{"steps:", "steps: []\nsteps2:"}, {"fault: {", "fautl: {"}, {"on: repository", "on: repositry"}, {"do: unreachable", "do: hang"},
		{"times: 3", "times: three"}, {"fault: {", "within: 15 mins\n      fault: {"}, {"fault: {", "expect: [mosbb a: {}]\n      fault: {"},
		{"fault: {", "expect: [mosb a: {condtion: Failed}]\n      fault: {"}, {"fault: {", "expect: []\n      fault: {"},
		{"fault: {", "never: [{x: {pods a: {}, pods b: {}}}]\n      fault: {"}, {"fault: {", "scale: {pod a: 1}\n      fault: {"},
		{"fault: {", "never: [{x: {since: '4.20', pods a: {}, pods b: {}}}]\n      fault: {"},
		{"fault: {", "never: [{x: {since: '4.20', until: '4.21'}}]\n      fault: {"},
		{"fault: {", "expect: [{until: '4.20'}]\n      fault: {"}, {"fault: {", "since: '4.17'\n      fault: {"},
		{"fault: {", "expect: [{until: 4.3, pods a: {}}]\n      fault: {"},
		{"fault: {", "expect: [pods a: {since: '4.20'}]\n      fault: {"},
		{"fault: {", "apply: {kind: Pod}\n      fault: {"}, {"fault: {", "expect: [machine a: {condition: Ready}]\n      fault: {"},
	} {
		text := document(good)
		broken := strings.Replace(text, change[0], change[1], 1)
		if broken == text {
			t.Fatalf("%q is not in\n%s", change[0], text)
		}
		for _, instance := range instances(t, "broken", []byte(broken)) {
			if s.Validate(instance) == nil {
				t.Errorf("takes %q:\n%s", change[1], broken)
			}
		}
	}
}
