package scenario

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/layersim/layersim/fixtures"
)

// reading is the reading of one scenario, or of one topology.
type reading struct {
	problems
	file     string
	scenario *Scenario
	// releases for which holds what is being read.
	releases window
	// armed are the faults that steps have armed so far, all every fault by its name.
	armed []armedFault
	all   map[string]*Fault
	// created are the objects that steps create, for names that the topology doesn't know.
	created []*unstructured.Unstructured
	objects *environments
}

// lookup finds a file by a path relative to the folder of the scenario's file or to a folder above it, the nearest
// first, and then among the fixtures of the binary. It returns the path by which a person finds it.
func lookup(from, wanted string) (string, []byte, error) {
	if filepath.IsAbs(wanted) {
		data, err := os.ReadFile(wanted)
		return wanted, data, err
	}
	dir, err := filepath.Abs(filepath.Dir(from))
	if err != nil {
		return "", nil, err
	}
	for {
		found := filepath.Join(dir, wanted)
		data, err := os.ReadFile(found)
		if err == nil {
			return shorten(found), data, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) && !strings.Contains(err.Error(), "not a directory") {
			return "", nil, err
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	data, err := fixtures.FS.ReadFile(strings.TrimPrefix(path.Clean(filepath.ToSlash(wanted)), "fixtures/"))
	return wanted, data, err
}

func shorten(file string) string {
	cwd, err := os.Getwd()
	if err != nil {
		return file
	}
	short, err := filepath.Rel(cwd, file)
	if err != nil {
		return file
	}
	return short
}

// neighbours lists what lies beside a wanted file, wherever lookup would have looked.
func neighbours(from, wanted string) []string {
	var found []string
	dir, err := filepath.Abs(filepath.Dir(from))
	folder := path.Dir(filepath.ToSlash(wanted))
	for err == nil {
		matches, _ := filepath.Glob(filepath.Join(dir, folder, "*.yaml")) // the pattern is good, and no match is no harm
		for _, m := range matches {
			found = append(found, path.Join(folder, filepath.Base(m)))
		}
		if filepath.Dir(dir) == dir {
			break
		}
		dir = filepath.Dir(dir)
	}
	embedded, _ := fs.Glob(fixtures.FS, path.Join(strings.TrimPrefix(folder, "fixtures/"), "*.yaml"))
	for _, m := range embedded {
		found = append(found, path.Join(folder, path.Base(m)))
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// manifest reads the objects of apply, create and objects: a path, an object, or a list of both.
func (r *reading) manifest(field string, n *node) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	add := func(field string, n *node) bool {
		object, _, ok := r.checkObject(field, n)
		if ok {
			out = append(out, &unstructured.Unstructured{Object: object})
		}
		return ok
	}
	r.list(field, n, func(item *node) bool {
		if item.kind == mappingNode {
			return add(field, item)
		}
		wanted, ok := r.string(field, item)
		if !ok {
			return false
		}
		found, data, err := lookup(r.file, wanted)
		if err != nil {
			rule := "is not a file in the folder of the scenario or in one above it"
			if !errors.Is(err, fs.ErrNotExist) {
				rule = "can't be read: " + err.Error()
			}
			instead := "write the path relative to the repository, e.g. fixtures/layered.yaml"
			if near := nearest(wanted, neighbours(r.file, wanted)); near != "" {
				instead = fmt.Sprintf("did you mean %q?", near)
			}
			r.fail(item, field, item.show(), rule, instead)
			return false
		}
		roots, errs := parseYAML(found, data)
		r.errs = append(r.errs, errs...)
		if len(roots) == 0 && len(errs) == 0 {
			r.fail(item, field, item.show(), "holds no object", "a file with at least one object")
		}
		for _, root := range roots {
			ok = add("", root) && ok
		}
		return ok && len(errs) == 0
	})
	r.created = append(r.created, out...)
	return out
}

func actApply(verb string) func(*reading, *node) []Action {
	return func(r *reading, n *node) []Action {
		return []Action{{Objects: r.manifest(verb, n)}}
	}
}

// targets reads a mapping from objects to something.
func (r *reading) targets(field, example string, n *node, read func(ref Ref, kind Kind, k, v *node) (map[string]any, bool)) []Action {
	if n.kind != mappingNode || len(n.keys) == 0 {
		r.fail(n, field, n.show(), "says nothing about an object", example)
		return nil
	}
	var out []Target
	for i, k := range n.keys {
		ref, kind, ok := r.ref(field, k)
		if !ok {
			continue
		}
		if patch, ok := read(ref, kind, k, n.values[i]); ok {
			out = append(out, Target{Ref: ref, Pos: k.pos, Patch: patch})
		}
	}
	return []Action{{Targets: out}}
}

func actPatch(r *reading, n *node) []Action {
	return r.targets("patch", "{machineconfigpool layered: {spec: {paused: true}}}", n,
		func(_ Ref, kind Kind, _, v *node) (map[string]any, bool) {
			if v.kind != mappingNode || len(v.keys) == 0 {
				r.fail(v, "patch", v.show(), "is not a merge patch", "a mapping with the fields to change; null removes one")
				return nil, false
			}
			patch, _ := v.data().(map[string]any)
			return patch, r.checkFields("patch", v, kind.object, kind.Kind)
		})
}

func actMeta(verb, part string) func(*reading, *node) []Action {
	return func(r *reading, n *node) []Action {
		return r.targets(verb, "{node layered-1: {node-role.kubernetes.io/layered: \"\"}}", n,
			func(_ Ref, _ Kind, k, v *node) (map[string]any, bool) {
				if v.kind != mappingNode || len(v.keys) == 0 {
					r.fail(v, verb, v.show(), "sets nothing", `a mapping of keys to values; "" is the empty value, null removes the key`)
					return nil, false
				}
				values, good := map[string]any{}, true
				for i, key := range v.keys {
					if wrong := validation.IsQualifiedName(key.text); len(wrong) > 0 {
						r.fail(key, verb, key.show(), "is not a key for a "+verb, brief(wrong))
						good = false
					}
					text, ok := r.text(verb, v.values[i])
					if verb == "label" && ok {
						if wrong := validation.IsValidLabelValue(text); len(wrong) > 0 {
							r.fail(v.values[i], verb, v.values[i].show(), "is not a label value", brief(wrong))
							ok = false
						}
					}
					good = good && ok
					values[key.text] = text
					if v.values[i].null() {
						values[key.text] = nil
					}
				}
				return map[string]any{"metadata": map[string]any{part: values}}, good
			})
	}
}

// brief is the first complaint of Kubernetes' validation without its examples and regular expression.
func brief(wrong []string) string {
	text, _, _ := strings.Cut(wrong[0], " (e.g.")
	return text
}

func actDelete(r *reading, n *node) []Action {
	var out []Target
	r.list("delete", n, func(item *node) bool {
		ref, _, ok := r.ref("delete", item)
		if ok {
			out = append(out, Target{Ref: ref, Pos: item.pos})
		}
		return ok
	})
	return []Action{{Targets: out}}
}

func actEvict(r *reading, n *node) []Action {
	var out []Target
	r.list("evict", n, func(item *node) bool {
		name, ok := r.glob("evict", item)
		if ok {
			out = append(out, Target{Ref: Ref{Kind: "Pod", Name: name}, Pos: item.pos})
		}
		return ok
	})
	return []Action{{Targets: out}}
}

// actNames makes a patch of each named object of one kind.
func actNames(verb, kind string, patch func() map[string]any) func(*reading, *node) []Action {
	return func(r *reading, n *node) []Action {
		var out []Target
		r.list(verb, n, func(item *node) bool {
			s, ok := r.glob(verb, item)
			if !ok {
				return false
			}
			if kind == "Node" {
				r.knownNode(verb, item, s)
			} else {
				r.knownPool(verb, item, s)
			}
			out = append(out, Target{Ref: Ref{Kind: kind, Name: s}, Pos: item.pos, Patch: patch()})
			return true
		})
		return []Action{{Targets: out}}
	}
}

func specPatch(field string, value any) func() map[string]any {
	return func() map[string]any { return map[string]any{"spec": map[string]any{field: value}} }
}

func actScale(r *reading, n *node) []Action {
	return r.targets("scale", "{machineset layered: 5}", n, func(ref Ref, kind Kind, k, v *node) (map[string]any, bool) {
		if !slices.Contains([]string{"MachineSet", "Deployment", "ReplicaSet"}, kind.Kind) {
			r.fail(k, "scale", k.show(), "can't be scaled", "a machineset, deployment or replicaset")
			return nil, false
		}
		replicas, ok := r.integer("scale", v, 0)
		if kind.Kind == "MachineSet" {
			var names []string
			for _, m := range r.scenario.Cluster.MachineSets {
				names = append(names, m.Name)
			}
			r.known("scale", k, ref.Name, "a machine set of this cluster", kind.Kind, names)
		}
		return specPatch("replicas", replicas)(), ok
	})
}

// known reports a name or glob that fits nothing of the topology and nothing that a step creates.
func (r *reading) known(field string, n *node, glob, what, kind string, names []string) {
	for _, object := range r.created {
		if object.GetKind() == kind {
			names = append(names, object.GetName())
		}
	}
	if r.scenario.Cluster.Name == "" || slices.ContainsFunc(names, func(name string) bool { return Match(glob, name) }) {
		return
	}
	r.fail(n, field, strconv.Quote(glob), "is not "+what, oneOf(glob, names))
}

func (r *reading) knownPool(field string, n *node, glob string) {
	var names []string
	for _, p := range r.scenario.Cluster.Pools {
		names = append(names, p.Name)
	}
	r.known(field, n, glob, "a pool of this cluster", "MachineConfigPool", names)
}

func (r *reading) knownNode(field string, n *node, glob string) {
	for _, m := range r.scenario.Cluster.MachineSets {
		// Nodes of a machine set begin with its name; the rest is the machine API's choice.
		if strings.HasPrefix(glob, m.Name+"-") || Match(glob, m.Name+"-x") {
			return
		}
	}
	var names []string
	for _, node := range r.scenario.Cluster.Nodes {
		names = append(names, node.Name)
	}
	r.known(field, n, glob, "a node of this cluster", "Node", names)
}

func (r *reading) knownAccount(field string, n *node, account string) bool {
	var names []string
	for _, a := range r.scenario.Cluster.Accounts {
		if a.Name == account {
			return true
		}
		names = append(names, a.Name)
	}
	if r.scenario.Cluster.Name == "" { // which is a mistake of its own
		return true
	}
	r.fail(n, field, strconv.Quote(account), "is not an account of this cluster's registry", oneOf(account, names))
	return false
}

func actAccount(verb string) func(*reading, *node) []Action {
	return func(r *reading, n *node) []Action {
		var out []Action
		r.list(verb, n, func(item *node) bool {
			account, ok := r.string(verb, item)
			if ok && r.knownAccount(verb, item, account) {
				out = append(out, Action{Account: account})
			}
			return ok
		})
		return out
	}
}

func actSecret(r *reading, n *node) []Action {
	return []Action{{Secrets: r.secrets("secret", n)}}
}

// secrets reads a mapping from Secrets to accounts.
func (r *reading) secrets(field string, n *node) []SecretFrom {
	if n.kind != mappingNode || len(n.keys) == 0 {
		r.fail(n, field, n.show(), "names no Secret", "{builder-dockercfg-7lzwl: {account: pusher}}")
		return nil
	}
	var out []SecretFrom
	for i, k := range n.keys {
		word := *k
		word.text = "secret " + k.text
		word.value = word.text
		ref, _, ok := r.ref(field, &word)
		if !ok {
			continue
		}
		s := SecretFrom{Namespace: ref.Namespace, Name: ref.Name, Pos: k.pos}
		if s.Name == "" || strings.ContainsAny(s.Namespace+s.Name, "*?") {
			r.fail(k, field, k.show(), "is not the name of one Secret", "a name, or namespace/name, without * and ?")
			continue
		}
		given := false
		account := func(v *node) {
			given = true
			// Credentials that no registry knows are asked for by the account "".
			if v.kind == scalarNode && v.value == "" {
				return
			}
			if name, ok := r.string("account", v); ok && r.knownAccount("account", v, name) {
				s.Account = name
			}
		}
		if v := n.values[i]; v.kind == scalarNode && !v.null() {
			account(v)
		} else if r.fields(v, field, "the credentials of a Secret", []string{"account", "host"}, func(key string, _, v *node) {
			if key == "account" {
				account(v)
				return
			}
			s.Host, _ = r.string("host", v)
		}) && !given {
			r.fail(v, field, k.show(), "gets no credentials", `account: NAME, or account: "" for wrong ones`)
		}
		out = append(out, s)
	}
	return out
}

// armedFault is a fault with the set of releases for which it is armed and not healed yet.
type armedFault struct {
	*Fault
	in uint
}

func actHeal(r *reading, n *node) []Action {
	var names []string
	r.list("heal", n, func(item *node) bool {
		word, ok := r.string("heal", item)
		if !ok {
			return false
		}
		var candidates []string
		var meant []*armedFault
		var ends uint
		now := r.releases.set()
		for i := range r.armed {
			switch f := &r.armed[i]; {
			case f.in == 0:
			case f.Name == word || f.On == word:
				meant = append(meant, f)
				ends |= f.in & now
			case f.in&now != 0:
				candidates = append(candidates, f.Name)
			}
		}
		if meant == nil {
			rule := "was never armed before this step"
			if r.all[word] != nil {
				rule = "is healed already"
			}
			r.fail(item, "heal", item.show(), rule, oneOf(word, candidates))
			return false
		}
		if ends != now {
			r.fail(item, "heal", item.show(), "is not armed in "+namesOf(now&^ends)+", for which this step holds, too",
				"since and until as in the step that arms it")
			return false
		}
		for _, f := range meant {
			f.in &^= now
		}
		names = append(names, word)
		return true
	})
	return []Action{{Names: names}}
}

func actComponents(verb string) func(*reading, *node) []Action {
	return func(r *reading, n *node) []Action {
		var names []string
		r.list(verb, n, func(item *node) bool {
			s, ok := r.choice(verb, item, Components...)
			names = append(names, s)
			return ok
		})
		return []Action{{Names: names}}
	}
}

// Components are the processes of a cluster, as stop, start, restart and crash name them.
var Components = []string{
	"build-pods", "kube", "machine-api", "machine-config-controller", "machine-config-operator", "machine-os-builder", "node-agents",
}

// verbs are those of write requests.
var verbs = []string{"create", "update", "patch", "delete"}

func actCrash(r *reading, n *node) []Action {
	c := &Crash{When: "after", Write: 1}
	if !r.fields(n, "crash", "a crash", []string{"component", "when", "write", "verb", "kind"}, func(key string, _, v *node) {
		switch key {
		case "component":
			c.Component, _ = r.choice(key, v, Components...)
		case "when":
			c.When, _ = r.choice(key, v, "before", "after")
		case "write":
			write, _ := r.integer(key, v, 1)
			c.Write = int(write)
		case "verb":
			c.Verb, _ = r.choice(key, v, verbs...)
		case "kind":
			c.Kind, _ = r.kind(key, v)
		}
	}) {
		return nil
	}
	if n.get("component") == nil {
		r.fail(n, "crash", "the crash", "hits nobody", "component: machine-os-builder")
	}
	return []Action{{Crash: c}}
}

// kind reads the name of a kind.
func (r *reading) kind(field string, n *node) (string, bool) {
	word, ok := r.string(field, n)
	if !ok {
		return "", false
	}
	k, known := FindKind(word)
	if !known {
		r.fail(n, field, n.show(), "is not a kind", oneOfKinds(word))
	}
	return k.Kind, known
}

func actWrite(r *reading, n *node) []Action {
	if n.kind != mappingNode || len(n.keys) == 0 {
		r.fail(n, "write", n.show(), "names no file of a node", "{layered-1: {/etc/motd: by hand}}")
		return nil
	}
	var files []NodeFile
	for i, k := range n.keys {
		if strings.ContainsAny(k.text, "*?") {
			r.fail(k, "write", k.show(), "is not the name of one node", "a name without * and ?")
		} else {
			r.knownNode("write", k, k.text)
		}
		v := n.values[i]
		if v.kind != mappingNode || len(v.keys) == 0 {
			r.fail(v, "write", v.show(), "names no file", "{/etc/motd: by hand}; null restores the file")
			continue
		}
		for j, file := range v.keys {
			if !strings.HasPrefix(file.text, "/") {
				r.fail(file, "write", file.show(), "is not an absolute path", strconv.Quote("/"+file.text))
				continue
			}
			f := NodeFile{Node: k.text, Path: file.text, Pos: file.pos}
			if !v.values[j].null() {
				text, ok := r.text("write", v.values[j])
				if !ok {
					continue
				}
				f.Content = &text
			}
			files = append(files, f)
		}
	}
	return []Action{{Files: files}}
}

func actImage(r *reading, n *node) []Action {
	var out []Action
	r.fields(n, "image", "what can be done to images", []string{"delete", "quota"}, func(key string, k, v *node) {
		if key == "delete" {
			r.list(key, v, func(item *node) bool {
				s, ok := r.string(key, item)
				if !ok {
					return false
				}
				build, of := strings.CutPrefix(s, "build:")
				if of {
					ok = r.isGlob(key, item, build)
				} else if _, err := name.ParseReference(s); err != nil {
					r.fail(item, key, item.show(), "is not the reference of an image", `"host/repository:tag", or "build:layered-*" for the image of a MachineOSBuild`)
					ok = false
				}
				if ok {
					out = append(out, Action{Registry: &RegistryAction{Delete: s}})
				}
				return ok
			})
			return
		}
		if v.kind != mappingNode || len(v.keys) == 0 {
			r.fail(v, key, v.show(), "limits no repository", "{openshift/os-image: 3Gi}; null lifts the limit")
			return
		}
		for i, repository := range v.keys {
			action := &RegistryAction{Quota: repository.text}
			if limit := v.values[i]; !limit.null() {
				quantity, err := resource.ParseQuantity(limit.text)
				if limit.kind != scalarNode || err != nil || quantity.Sign() <= 0 || quantity.Value() == math.MaxInt64 {
					r.fail(limit, key, limit.show(), "is not a number of bytes", "a number such as 3221225472 or 3Gi; null lifts the limit")
					continue
				}
				action.Bytes = quantity.Value()
			}
			out = append(out, Action{Registry: action})
		}
	})
	if len(out) == 0 && n.kind == mappingNode && len(n.keys) == 0 {
		r.fail(n, "image", "the action", "does nothing", "delete or quota")
	}
	return out
}

func actWait(r *reading, n *node) []Action {
	d, ok := r.duration("wait", n)
	if !ok {
		return nil
	}
	return []Action{{Duration: d}}
}
