package scenario

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Load reads scenarios from files and folders. A folder gives all its *.yaml and *.yml files, those of folders in it
// too, ordered by path; topologies and Kubernetes manifests among them are passed over. All files are read before an error is returned; it is an [Errors] with all mistakes of all
// files, and the scenarios without mistakes are returned beside it.
func Load(paths []string) ([]*Scenario, error) {
	var files []string
	var errs Errors
	named := map[string]bool{}
	for _, p := range paths {
		info, err := os.Stat(p)
		switch {
		case err != nil:
			errs = append(errs, unreadable(p, err))
		case !info.IsDir():
			files = append(files, p)
			named[p] = true
		default:
			found := len(files)
			err := filepath.WalkDir(p, func(file string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				if ext := filepath.Ext(file); !d.IsDir() && (ext == ".yaml" || ext == ".yml") {
					files = append(files, file)
				}
				return nil
			})
			slices.Sort(files[found:])
			switch {
			case err != nil:
				errs = append(errs, unreadable(p, err))
			case len(files) == found:
				errs = append(errs, &Error{Position: Position{File: p}, Value: "the folder", Rule: "holds no scenario",
					Instead: "a folder with *.yaml files"})
			}
		}
	}
	var all []*Scenario
	first := map[string]*Scenario{}
	read := map[string]bool{}
	for _, file := range files {
		if read[filepath.Clean(file)] {
			continue
		}
		read[filepath.Clean(file)] = true
		data, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, unreadable(file, err))
			continue
		}
		scenarios, err := parse(file, data, named[file])
		var mistakes Errors
		if err != nil && !errors.As(err, &mistakes) {
			return nil, err
		}
		errs = append(errs, mistakes...)
		for _, s := range scenarios {
			if other := first[s.Name]; other != nil {
				errs = append(errs, &Error{Position: s.Pos, Field: "name", Value: strconv.Quote(s.Name),
					Rule: "is the name of another scenario, at " + other.Pos.String(), Instead: "a name of its own"})
				continue
			}
			first[s.Name] = s
			all = append(all, s)
		}
	}
	if len(errs) > 0 {
		return all, errs.sorted()
	}
	return all, nil
}

func unreadable(file string, err error) *Error {
	var of *fs.PathError
	if errors.As(err, &of) {
		err = of.Err
	}
	return &Error{Position: Position{File: file}, Value: "the file", Rule: "can't be read", Instead: err.Error()}
}

// environmentsOnce are made once: making them costs more than reading a file.
var environmentsOnce = sync.OnceValues(newEnvironments)

// Parse reads the scenarios of a file, which may hold several documents. The path is used in messages and to find the
// files that the scenarios name. The error is an [Errors] unless the language itself is broken; scenarios without
// mistakes are returned beside it.
func Parse(file string, data []byte) ([]*Scenario, error) { return parse(file, data, true) }

// parse reads a file; where not only scenarios are expected it passes over other documents that belong to the program.
func parse(file string, data []byte, only bool) ([]*Scenario, error) {
	environments, err := environmentsOnce()
	if err != nil {
		return nil, err
	}
	roots, errs := parseYAML(file, data)
	if len(roots) == 0 && len(errs) == 0 {
		errs = append(errs, &Error{Position: Position{File: file, Line: 1, Column: 1}, Value: "the file", Rule: "is empty",
			Instead: "kind: Scenario, name, shows, cluster and steps"})
	}
	broken := len(errs) > 0
	var all []*Scenario
	for _, root := range roots {
		if kind := root.get("kind"); !only && kind != nil && (root.get("apiVersion") != nil || kind.text == "Cluster") {
			continue
		}
		variants, mistakes := expand(root)
		errs = append(errs, mistakes...)
		for _, v := range variants {
			r := &reading{file: file, all: map[string]*Fault{}, objects: environments}
			r.scenario = &Scenario{Pos: root.pos}
			r.read(v.root)
			if v.name != "" {
				r.scenario.Name += "/" + v.name
			}
			for _, e := range r.errs {
				// What follows from a mistake in the variants is no mistake of its own.
				if !slices.ContainsFunc(mistakes, func(m *Error) bool { return m.Position == e.Position }) {
					errs = append(errs, e)
				}
			}
			if len(r.errs) == 0 && len(mistakes) == 0 && !broken {
				all = append(all, r.scenario)
			}
		}
	}
	if len(errs) > 0 {
		return all, errs.sorted()
	}
	return all, nil
}

// variant is one of the scenarios that a document stands for.
type variant struct {
	name string
	root *node
}

// expand makes a document of each variant. A document without variants stands for itself, and $( means nothing in it.
func expand(root *node) ([]variant, Errors) {
	var p problems
	variants := root.get("variants")
	if variants == nil {
		return []variant{{root: root}}, nil
	}
	if variants.kind != mappingNode || len(variants.keys) == 0 {
		p.fail(variants, "variants", variants.show(), "are no variants", "{once: {failures: 1}, twice: {failures: 2}}")
		return nil, p.errs
	}
	body := &node{kind: mappingNode, pos: root.pos}
	for i, k := range root.keys {
		if k.text != "variants" {
			body.keys, body.values = append(body.keys, k), append(body.values, root.values[i])
		}
	}
	var out []variant
	var names []string
	for i, k := range variants.keys {
		if !isName.MatchString(k.text) {
			p.fail(k, "variants", k.show(), "is not a name", nameRule)
		}
		given := variants.values[i]
		vars := map[string]*node{}
		if given.kind != mappingNode || len(given.keys) == 0 {
			p.fail(given, "variants", given.show(), "sets no variable", "{failures: 1}")
			continue
		}
		var own []string
		for j, name := range given.keys {
			value := given.values[j]
			if !isWord(name.text) {
				p.fail(name, "variants", name.show(), "is not the name of a variable", "letters, digits, - and _, a letter first")
			}
			if value.kind != scalarNode {
				p.fail(value, "variants", value.show(), "is not the value of a variable", "text or a number")
			}
			vars[name.text] = value
			own = append(own, name.text)
		}
		slices.Sort(own)
		if i == 0 {
			names = own
		} else if !slices.Equal(own, names) {
			p.fail(k, "variants", k.show(), "sets other variables than the first variant",
				fmt.Sprintf("%s, as the first does", strings.Join(names, ", ")))
		}
		v := variant{name: k.text}
		v.root = body.substitute(vars, func(at *node, name string) {
			p.fail(at, "variants", "$("+name+")", "is not a variable of the variants", oneOf(name, own)+"; $$("+name+") stands for the text itself")
		})
		out = append(out, v)
	}
	for _, name := range names {
		if !strings.Contains(mentions(body), "$("+name+")") {
			p.fail(variants, "variants", strconv.Quote(name), "is used nowhere", "write $("+name+") where it belongs")
		}
	}
	return out, p.errs
}

// mentions is all text of a document.
func mentions(n *node) string {
	var b strings.Builder
	for _, k := range n.keys {
		b.WriteString(k.text + "\n")
	}
	if n.kind == scalarNode {
		b.WriteString(n.text + "\n")
	}
	for _, v := range n.values {
		b.WriteString(mentions(v))
	}
	return b.String()
}

const nameRule = "lower-case letters, digits and -, a letter first, e.g. build-failure-three-retries"

var isName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// fileFields are the fields of a scenario.
var fileFields = []string{
	"kind", "name", "area", "shows", "source", "needs", inSince, inUntil, "seed", "cluster", "variants", "steps", inNever,
	inAlways,
}

// read reads a document into r.scenario.
func (r *reading) read(root *node) {
	s := r.scenario
	if kind := root.get("kind"); root.kind != mappingNode || kind == nil || kind.text != "Scenario" {
		at, value := root, root.show()
		if kind != nil {
			at, value = kind, kind.show()
		} else if root.kind == mappingNode {
			value = "the document"
		}
		r.fail(at, "kind", value, "is not a scenario", "kind: Scenario")
		return
	}
	for _, need := range []string{"name", "shows", "cluster", "steps"} {
		if root.get(need) == nil {
			w, _ := FindWord(need)
			r.fail(root, "", "the scenario", "has no "+need, w.Short)
		}
	}
	s.Span, r.releases = r.span(root, allReleases())
	// Steps and rules refer to the cluster, wherever it stands in the file.
	if cluster := root.get("cluster"); cluster != nil {
		s.Cluster = r.topology(cluster)
	}
	r.fields(root, "", "a scenario", fileFields, func(key string, _, v *node) {
		switch key {
		case "name":
			if name, ok := r.string(key, v); ok {
				s.Name = name
				if !isName.MatchString(name) {
					r.fail(v, key, v.show(), "is not a name", nameRule)
				}
			}
		case "area":
			s.Area, _ = r.string(key, v)
		case "shows":
			s.Shows, _ = r.string(key, v)
		case "source":
			if v.kind != mappingNode || len(v.keys) == 0 {
				r.fail(v, key, v.show(), "is not a source", `{seed: "In the case of a build failure"}`)
				return
			}
			s.Source = map[string][]string{}
			for i, k := range v.keys {
				s.Source[k.text], _ = r.strings(key, v.values[i])
			}
		case "needs":
			s.Needs, _ = r.strings(key, v)
		case "seed":
			if seed, ok := r.integer(key, v, 1); ok {
				s.Seed = uint64(seed)
			}
		case "steps":
			r.steps(v)
		}
	})
	for _, f := range r.armed {
		if f.On == onHost && !slices.Contains(s.Needs, onHost) {
			r.errs = append(r.errs, &Error{Position: f.Pos, Field: "on", Value: `"host"`,
				Rule: "is not possible here: the scenario may run on clusters without one", Instead: "needs: [host]"})
		}
	}
	// Rules may name what steps create.
	if v := root.get(inNever); v != nil {
		s.Never = r.rules(inNever, v)
	}
	if v := root.get(inAlways); v != nil {
		s.Always = r.rules(inAlways, v)
	}
	if len(r.errs) > 0 {
		return
	}
	var idle uint
	for i, release := range Releases {
		if s.Holds(release) && len(s.For(release).Steps) == 0 {
			idle |= 1 << i
		}
	}
	if idle != 0 {
		r.fail(root.get("steps"), "steps", "no step", "is left for "+namesOf(idle), "since or until of the scenario, to skip it there")
	}
}

func (r *reading) steps(n *node) {
	if n.kind != sequenceNode || len(n.values) == 0 {
		r.fail(n, "steps", n.show(), "says nothing to do", "a list with at least one step")
		return
	}
	first := map[string]Position{}
	for _, item := range n.values {
		s, ok := r.step(item)
		if s.Name != "" {
			if at, twice := first[s.Name]; twice {
				r.fail(item, "steps", strconv.Quote(s.Name), fmt.Sprintf("is the name of another step, in line %d", at.Line), "a name of its own")
			} else {
				first[s.Name] = s.Pos
			}
		}
		if ok {
			r.scenario.Steps = append(r.scenario.Steps, s)
		}
	}
}
