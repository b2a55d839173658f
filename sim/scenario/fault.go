package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// place is where faults happen: what can happen there and how it is aimed.
type place struct {
	name   string
	does   []string
	aims   []string
	phases []string
	// one is the one-line explanation, means explains each of does.
	one   string
	means []string
}

// onHost is the place of faults on the cluster itself, and the capability that they need.
const onHost = "host"

// places is ordered by name.
var places = []place{
	{
		name: "api", one: "requests to the API server",
		does: []string{"conflict", "delay", "error", "lost-response", "timeout"},
		means: []string{
			"the request is refused: somebody else changed the object",
			"the request takes duration longer",
			"the server answers 500 and does nothing",
			"the request is done, but the caller gets an error",
			"the caller gets a timeout, and nothing is done",
		},
		aims: []string{"caller", "verb", "kind", "object", "when"},
	},
	{
		name: "build", one: "build pods, by the MachineOSBuild that they build",
		does:   []string{"fail", "hang", "kill"},
		means:  []string{"the phase fails", "the phase never ends", "the pod is killed in the phase"},
		aims:   []string{"build", "phase"},
		phases: []string{"pull", "build", "push", "digest"},
	},
	{
		name: onHost, one: "what the cluster itself runs on, where it is one of containers: the scenario needs host",
		does: []string{"api-server-restart", "image-missing", "pause"},
		means: []string{
			"the API server is killed, and the kubelet starts it again",
			"the image of build pods is not there, and can't be pulled",
			"the machine with all that runs on it, API server included, stands still",
		},
	},
	{
		name: "node", one: "the machine below a Node, while it is updated",
		does:   []string{"fail", "hang", "power-off"},
		means:  []string{"the phase fails", "the phase never ends", "the machine goes dark and comes back when the fault is healed"},
		aims:   []string{"node", "phase"},
		phases: []string{"drain", "pull", "stage", "reboot", "boot", "uncordon", "done"},
	},
	{
		name: "registry", one: "requests to the registry",
		does: []string{"error", "forbidden", "not-found", "quota", "unauthorized", "unreachable"},
		means: []string{
			"it answers 500", "it answers 403", "it answers 404", "it answers 413: no space is left",
			"it answers 401", "it doesn't answer",
		},
		aims: []string{"caller", "method", "path"},
	},
	{
		name: "repository", one: "the package repositories that builds install from",
		does:  []string{"missing-package", "unreachable"},
		means: []string{"the repositories don't have package", "no repository answers"},
		aims:  []string{"repository", "package"},
	},
}

func placeNames() []string {
	names := make([]string, len(places))
	for i, p := range places {
		names[i] = p.name
	}
	return names
}

// methods are those that registries know.
var methods = []string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"}

func actFault(r *reading, n *node) []Action {
	var out []Action
	r.list("fault", n, func(item *node) bool {
		f, ok := r.fault(item)
		if ok {
			out = append(out, Action{Fault: f})
		}
		return ok
	})
	return out
}

func (r *reading) fault(n *node) (*Fault, bool) {
	if n.kind != mappingNode {
		r.fail(n, "fault", n.show(), "is not a fault", "{on: repository, do: unreachable}")
		return nil, false
	}
	before := len(r.errs)
	f := &Fault{Pos: n.pos}
	var at place
	on := n.get("on")
	if on == nil {
		r.fail(n, "fault", "the fault", "happens nowhere", "on: one of "+strings.Join(placeNames(), ", "))
		return nil, false
	}
	name, ok := r.choice("on", on, placeNames()...)
	if !ok {
		return nil, false
	}
	at = places[slices.IndexFunc(places, func(p place) bool { return p.name == name })]
	known := append([]string{"name", "on", "do", "skip", "times", "duration"}, at.aims...)
	r.fields(n, "fault", "a fault on "+at.name, known, func(key string, _, v *node) {
		switch key {
		case "name":
			f.Name, _ = r.string(key, v)
		case "on":
			f.On = at.name
		case "do":
			f.Do, _ = r.choice(key, v, at.does...)
		case "skip":
			skip, _ := r.integer(key, v, 0)
			f.Skip = int(skip)
		case "times":
			times, _ := r.integer(key, v, 1)
			f.Times = int(times)
		case "duration":
			f.Duration, _ = r.duration(key, v)
		case "caller":
			f.Caller, _ = r.glob(key, v)
		case "verb":
			f.Verb, _ = r.choice(key, v, append([]string{"get", "list"}, verbs...)...)
		case "kind":
			f.Kind, _ = r.kind(key, v)
		case "object", "node", "repository", "build":
			f.Object, _ = r.glob(key, v)
			if key == "node" && f.Object != "" {
				r.knownNode(key, v, f.Object)
			}
		case "when":
			f.When, _ = r.choice(key, v, "before", "after")
		case "method":
			f.Method, _ = r.choice(key, v, methods...)
		case "path":
			f.Path, _ = r.glob(key, v)
		case "phase":
			f.Phase, _ = r.choice(key, v, at.phases...)
		case "package":
			f.Package, _ = r.string(key, v)
		}
	})
	switch {
	case n.get("do") == nil:
		r.fail(n, "fault", "the fault", "does nothing", fmt.Sprintf("do: %s", oneOf("", at.does)))
	case f.Do == "delay" && n.get("duration") == nil:
		r.fail(n, "fault", "a delay", "has no length", `duration: "30s"`)
	case f.Do == "missing-package" && n.get("package") == nil:
		r.fail(n, "fault", "no package", "is missing", "package: NAME")
	case f.Do == "unreachable" && n.get("package") != nil:
		r.fail(n.get("package"), "fault", "a package", "can't be aimed at with unreachable", "do: missing-package")
	}
	if f.Name == "" {
		f.Name = f.On + "-" + f.Do
		for i := 2; r.all[f.Name] != nil; i++ {
			f.Name = f.On + "-" + f.Do + "-" + strconv.Itoa(i)
		}
	} else if first := r.all[f.Name]; first != nil {
		r.fail(n, "fault", strconv.Quote(f.Name), fmt.Sprintf("is the name of another fault, in line %d", first.Pos.Line), "a name of its own")
	} else if slices.Contains(placeNames(), f.Name) {
		r.fail(n, "fault", strconv.Quote(f.Name), "is the name of a place", "another name: heal with a place heals all faults there")
	}
	if len(r.errs) > before {
		// A fault with a mistake counts as armed, so that a later heal is not another mistake.
		r.all[f.Name] = f
		r.armed = append(r.armed, armedFault{f, r.releases.set()})
		return nil, false
	}
	r.all[f.Name] = f
	r.armed = append(r.armed, armedFault{f, r.releases.set()})
	return f, true
}
