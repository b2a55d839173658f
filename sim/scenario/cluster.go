package scenario

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/layersim/layersim/controllers/layering"
)

// clusterFields are the parts of a topology.
var clusterFields = []string{
	"accounts", "builders", "controllers", "machineSets", "nodes", "objects", "pools", "secrets", "workloads",
}

// topology reads the field cluster: the name of a topology, or one with changes.
func (r *reading) topology(n *node) Topology {
	t := Topology{Pos: n.pos}
	if n.kind == scalarNode {
		name, ok := r.string("cluster", n)
		if !ok {
			return t
		}
		base, file, ok := r.namedTopology(n, name)
		if !ok {
			return t
		}
		r.cluster(name, file, base, &t)
		return t
	}
	if n.kind != mappingNode {
		r.fail(n, "cluster", n.show(), "is not a cluster", "the name of a topology, or {like: two-pools, ...}")
		return t
	}
	base, file, name := &node{kind: mappingNode, pos: n.pos}, r.file, "own"
	changes := &node{kind: mappingNode, pos: n.pos}
	for i, k := range n.keys {
		if k.text != "like" {
			changes.keys, changes.values = append(changes.keys, k), append(changes.values, n.values[i])
			continue
		}
		if like, ok := r.string("like", n.values[i]); ok {
			if found, at, ok := r.namedTopology(n.values[i], like); ok {
				base, file, name = found, at, like
			} else {
				return t
			}
		}
	}
	for i, part := range changes.values {
		if part.kind != mappingNode {
			continue
		}
		for j, k := range part.keys {
			if part.values[j].null() && base.get(changes.keys[i].text).get(k.text) == nil {
				r.fail(k, changes.keys[i].text, k.show(), "removes nothing, for null removes a part of "+name, "{} for one without fields")
			}
		}
	}
	// Objects of the scenario come after those of the topology, and don't replace them.
	if more, objects := changes.get("objects"), base.get("objects"); more != nil && objects != nil {
		both := &node{kind: sequenceNode, pos: more.pos}
		for _, list := range []*node{objects, more} {
			if list.kind == sequenceNode {
				both.values = append(both.values, list.values...)
			} else {
				both.values = append(both.values, list)
			}
		}
		changes.values[slices.Index(changes.keys, changes.key("objects"))] = both
	}
	r.cluster(name, file, merge(base, changes), &t)
	return t
}

// namedTopology finds fixtures/clusters/NAME.yaml and returns its mapping without kind and name.
func (r *reading) namedTopology(n *node, name string) (*node, string, bool) {
	const folder = "fixtures/clusters"
	file, data, err := lookup(r.file, path.Join(folder, name+".yaml"))
	if err != nil {
		var names []string
		for _, f := range neighbours(r.file, folder+"/x.yaml") {
			names = append(names, strings.TrimSuffix(path.Base(f), ".yaml"))
		}
		rule := "is not a topology of " + folder
		if !errors.Is(err, fs.ErrNotExist) {
			rule = "can't be read: " + err.Error()
		}
		r.fail(n, "cluster", strconv.Quote(name), rule, oneOf(name, names))
		return nil, "", false
	}
	roots, errs := parseYAML(file, data)
	r.errs = append(r.errs, errs...)
	if len(errs) > 0 {
		return nil, "", false
	}
	if len(roots) != 1 || roots[0].get("kind") == nil || roots[0].get("kind").text != "Cluster" {
		at := &node{pos: Position{File: file, Line: 1, Column: 1}}
		r.fail(at, "", "the file", "is not a topology", "one document with kind: Cluster")
		return nil, "", false
	}
	body := &node{kind: mappingNode, pos: roots[0].pos}
	ok := r.fields(roots[0], "", "a topology", append([]string{"kind", "name", "shows"}, clusterFields...), func(key string, k, v *node) {
		switch key {
		case "kind":
		case "name":
			if v.text != name {
				r.fail(v, "name", v.show(), "is not the name of the file", strconv.Quote(name))
			}
		case "shows":
			r.string("shows", v)
		default:
			body.keys, body.values = append(body.keys, k), append(body.values, v)
		}
	})
	return body, file, ok
}

// each reads a mapping from names to something; null stands for a mapping without fields.
func (r *reading) each(field string, n *node, read func(k, v *node)) {
	if n.kind != mappingNode {
		r.fail(n, field, n.show(), "is not a mapping", "names, and below each its fields")
		return
	}
	for i, k := range n.keys {
		v := n.values[i]
		if v.null() {
			v = &node{kind: mappingNode, pos: k.pos}
		}
		if wrong := validation.IsDNS1123Subdomain(k.text); len(wrong) > 0 && field != "secrets" {
			r.fail(k, field, k.show(), "is not a name", brief(wrong))
			continue
		}
		read(k, v)
	}
}

// cluster reads a whole topology. Relative paths in it are looked up from file.
func (r *reading) cluster(name, file string, n *node, t *Topology) {
	t.Name = name
	t.Builders, t.Controllers = 1, 1
	t.Pools = []Pool{{Name: layering.MasterPool}, {Name: layering.WorkerPool}}
	r.fields(n, "cluster", "a cluster", clusterFields, func(key string, _, v *node) {
		switch key {
		case "accounts":
			r.each(key, v, func(k, v *node) { t.Accounts = append(t.Accounts, r.account(k, v)) })
		case "builders":
			c, _ := r.integer(key, v, 0)
			t.Builders = int(c)
		case "controllers":
			c, _ := r.integer(key, v, 0)
			t.Controllers = int(c)
		case "machineSets":
			r.each(key, v, func(k, v *node) { t.MachineSets = append(t.MachineSets, r.machineSet(k, v)) })
		case "nodes":
			r.each(key, v, func(k, v *node) { t.Nodes = append(t.Nodes, r.nodes(k, v)...) })
		case "pools":
			r.each(key, v, func(k, v *node) { r.pool(k, v, t) })
		case "workloads":
			r.each(key, v, func(k, v *node) { t.Workloads = append(t.Workloads, r.workload(k, v)) })
		}
	})
	// What follows refers to the parts above.
	outer := r.scenario.Cluster
	r.scenario.Cluster = *t
	defer func() { r.scenario.Cluster = outer }()
	if v := n.get("secrets"); v != nil {
		t.Secrets = r.secrets("secrets", v)
	}
	if v := n.get("objects"); v != nil {
		at := r.file
		r.file = file
		t.Objects = r.manifest("objects", v)
		r.file = at
	}
	names := map[string]bool{}
	for _, one := range t.Nodes {
		if names[one.Name] {
			r.fail(n, "nodes", strconv.Quote(one.Name), "is the name of two nodes", "other names or counts")
		}
		names[one.Name] = true
	}
}

func (r *reading) account(k, v *node) Account {
	a := Account{Name: k.text}
	r.fields(v, "accounts", "an account", []string{"pull", "push"}, func(key string, _, v *node) {
		var out []string
		r.list(key, v, func(item *node) bool {
			s, ok := r.glob(key, item)
			if ok && strings.Contains(strings.TrimSuffix(s, "*"), "*") {
				r.fail(item, key, item.show(), "has a * in the middle", "* only at the end, e.g. openshift/*")
			}
			out = append(out, s)
			return ok
		})
		if key == "pull" {
			a.Pull = out
		} else {
			a.Push = out
		}
	})
	return a
}

func (r *reading) roles(field string, n *node) []string {
	roles, _ := r.strings(field, n)
	for i, role := range roles {
		if wrong := validation.IsQualifiedName(layering.NodeRolePrefix + role); role != "" && len(wrong) > 0 {
			r.fail(n, field, strconv.Quote(role), "is not a role", brief(wrong))
		}
		if slices.Contains(roles[:i], role) {
			r.fail(n, field, strconv.Quote(role), "stands there twice", "once")
		}
	}
	return roles
}

func (r *reading) nodes(k, v *node) []Node {
	like, count := Node{Name: k.text, Count: 1, Roles: []string{layering.WorkerPool}}, int64(-1)
	r.fields(v, "nodes", "a node", []string{"count", "roles", "zone"}, func(key string, _, v *node) {
		switch key {
		case "count":
			if c, ok := r.integer(key, v, 0); ok {
				count = c
			}
		case "roles":
			like.Roles = r.roles(key, v)
		case "zone":
			like.Zone, _ = r.string(key, v)
		}
	})
	if count < 0 {
		return []Node{like}
	}
	var out []Node
	for i := range count {
		one := like
		one.Name = fmt.Sprintf("%s-%d", like.Name, i+1)
		out = append(out, one)
	}
	return out
}

func (r *reading) machineSet(k, v *node) MachineSet {
	m := MachineSet{Name: k.text, Roles: []string{layering.WorkerPool}}
	r.fields(v, "machineSets", "a machine set", []string{"replicas", "roles", "zone"}, func(key string, _, v *node) {
		switch key {
		case "replicas":
			c, _ := r.integer(key, v, 0)
			m.Replicas = int(c)
		case "roles":
			m.Roles = r.roles(key, v)
		case "zone":
			m.Zone, _ = r.string(key, v)
		}
	})
	return m
}

func (r *reading) pool(k, v *node, t *Topology) {
	p := Pool{Name: k.text}
	r.fields(v, "pools", "a pool", []string{"maxUnavailable", "paused"}, func(key string, _, v *node) {
		switch key {
		case "maxUnavailable":
			p.MaxUnavailable = r.amount(key, v)
		case "paused":
			p.Paused, _ = r.boolean(key, v)
		}
	})
	if i := slices.IndexFunc(t.Pools, func(known Pool) bool { return known.Name == p.Name }); i >= 0 {
		t.Pools[i] = p
		return
	}
	t.Pools = append(t.Pools, p)
}

// amount reads a number or a percentage.
func (r *reading) amount(field string, n *node) string {
	text := n.text
	percent, isPercent := strings.CutSuffix(text, "%")
	number, err := strconv.Atoi(percent)
	if n.kind != scalarNode || err != nil || number < 0 || isPercent && number > 100 {
		r.fail(n, field, n.show(), "is neither a number nor a percentage", `e.g. 2 or "25%"`)
		return ""
	}
	return text
}

func (r *reading) workload(k, v *node) Workload {
	w := Workload{Name: k.text, Replicas: 1}
	r.fields(v, "workloads", "a workload", []string{"replicas", "minAvailable", "nodeSelector"}, func(key string, _, v *node) {
		switch key {
		case "replicas":
			c, _ := r.integer(key, v, 0)
			w.Replicas = int(c)
		case "minAvailable":
			w.MinAvailable = r.amount(key, v)
		case "nodeSelector":
			w.NodeSelector = map[string]string{}
			if v.kind != mappingNode {
				r.fail(v, key, v.show(), "is not a node selector", `{node-role.kubernetes.io/layered: ""}`)
				return
			}
			for i, label := range v.keys {
				w.NodeSelector[label.text], _ = r.text(key, v.values[i])
			}
		}
	})
	return w
}
