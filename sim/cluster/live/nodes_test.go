package live

import (
	"context"
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/layersim/layersim/sim/cluster/live/agent"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/node"
	"github.com/layersim/layersim/sim/registry"
)

// pod is an agent that notes its orders, and can be away.
type pod struct {
	away atomic.Bool

	mu     sync.Mutex
	orders []string
}

func (p *pod) got() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.orders)
}

func newNodes(t *testing.T) (*nodes, *pod) {
	t.Helper()
	p := &pod{}
	answers := agent.NewAnswers("secret")
	agent.Answer(answers, agent.NodesOrderPath, func(_ context.Context, _ string, o agent.NodesOrder) (struct{}, error) {
		if p.away.Load() {
			return struct{}{}, agent.ErrNotYet
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.orders = append(p.orders, strings.TrimSpace(strings.Join([]string{o.Do, o.Name, o.Path, o.Content, o.User, o.Password}, " ")))
		if o.Name == "bad" {
			return struct{}{}, errors.New("no such image")
		}
		return struct{}{}, nil
	})
	server := httptest.NewServer(answers)
	e := &Engine{parent: t.Context()}
	e.ctx, e.cancel = context.WithCancelCause(t.Context())
	e.sequence.init()
	n := &nodes{engine: e, agent: &agent.Asker{URL: server.URL, Token: "secret", From: "layersim"}, orders: make(chan order, 64),
		has: map[string]bool{}, told: map[int]int{}}
	e.watches.Go(n.deliver)
	t.Cleanup(func() {
		e.cancel(nil)
		e.watches.Wait()
		server.Close()
	})
	return n, p
}

// What is done to machines becomes orders, in that order, with the installer's credentials; one that fails says why.
func TestNodesOrders(t *testing.T) {
	n, p := newNodes(t)
	keys, err := registry.Keychain(corev1.SecretTypeDockerConfigJson, map[string][]byte{
		corev1.DockerConfigJsonKey: registry.DockerConfigJSON("quay.io", registry.Account{Name: "installer", Password: "pass"})})
	if err != nil {
		t.Fatal(err)
	}
	n.options.InstallKeychain = keys
	spec := func(name string) node.HostSpec {
		return node.HostSpec{Name: name, BaseImage: "quay.io/os@sha256:" + strings.Repeat("0", 64)}
	}
	if err := n.Install(spec("w1")); err != nil {
		t.Fatal(err)
	}
	if err := n.Install(spec("w1")); err == nil || !strings.Contains(err.Error(), "machine exists") {
		t.Errorf("a second machine of that name: %v", err)
	}
	if err := n.Provision(spec("bad")); err == nil || !strings.Contains(err.Error(), "no such image") || n.Has("bad") {
		t.Errorf("%v; the machine is there: %t", err, n.Has("bad"))
	}
	if err := n.Provision(spec("w2")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"w1", "w2"}, n.Names()); diff != "" {
		t.Error(diff)
	}
	n.PowerOff("w1")
	n.PowerOn("w1")
	n.PowerOn("w3")
	n.Remove("w2")
	if err := errors.Join(n.WriteFile("w1", "/a", "b"), n.RestoreFile("w1", "/a")); err != nil {
		t.Error(err)
	}
	if err := n.WriteFile("w2", "/a", "b"); err == nil || !strings.Contains(err.Error(), "there is no machine w2") {
		t.Errorf("written on a machine that was removed: %v", err)
	}
	want := []string{"install w1   installer pass", "provision bad", "provision w2", "power-off w1", "power-on w1", "remove w2",
		"write w1 /a b", "restore w1 /a"}
	if diff := cmp.Diff(want, p.got()); diff != "" {
		t.Errorf("(-want +orders):\n%s", diff)
	}
	if n.engine.ctx.Err() != nil {
		t.Error(context.Cause(n.engine.ctx))
	}
	n.has["bad"] = true
	n.PowerOff("bad")
	if err := context.Cause(n.engine.ctx); err == nil || !strings.Contains(err.Error(), "power-off of machine bad") {
		t.Errorf("an order that can't be carried out: %v, want the cluster broken", err)
	}
}

// While the pod is away orders wait for it, but those who must not wait don't.
func TestNodesAway(t *testing.T) {
	n, p := newNodes(t)
	n.has["w1"] = true
	p.away.Store(true)
	start := time.Now()
	n.PowerOff("w1")
	if waited := time.Since(start); waited < orderPatience || waited > 2*orderPatience {
		t.Errorf("waited for %s", waited)
	}
	time.AfterFunc(100*time.Millisecond, func() { p.away.Store(false) })
	n.PowerOn("w1")
	if diff := cmp.Diff([]string{"power-off w1", "power-on w1"}, p.got()); diff != "" {
		t.Errorf("(-want +orders):\n%s", diff)
	}
}

// What is told twice happened once.
func TestNodesHear(t *testing.T) {
	n, _ := newNodes(t)
	var got []string
	n.options.Observe = func(r history.Node) { got = append(got, r.Node+" "+r.Event) }
	for _, news := range []agent.NodesNews{
		{Machine: 1, Serial: 1, Node: &history.Node{Node: "w1", Event: "boot"}},
		{Machine: 1, Serial: 1, Node: &history.Node{Node: "w1", Event: "boot"}},
		{Machine: 2, Serial: 1, Node: &history.Node{Node: "w2", Event: "boot"}},
		{Component: &history.Component{Name: "kubelet", Event: "error"}},
		{Machine: 1, Serial: 2, Node: &history.Node{Node: "w1", Event: "ready"}},
		{Machine: 1, Serial: 1, Node: &history.Node{Node: "w1", Event: "boot"}},
	} {
		if _, err := n.hear(t.Context(), "", news); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"w1 boot", "w2 boot", "w1 ready"}, got); diff != "" {
		t.Errorf("(-want +heard):\n%s", diff)
	}
	if records := n.engine.records; len(records) != 1 || records[0].record.Component.Name != "kubelet" {
		t.Errorf("records %v, want the error of a component", records)
	}
}

// The faults of the run are those of the machines, and a hanging phase hangs.
func TestNodesBefore(t *testing.T) {
	n, _ := newNodes(t)
	faults := map[string]error{"pull": errors.New("no route to host"), "boot": node.ErrHang}
	n.options.Before = func(_, phase string) error { return faults[phase] }
	for phase, want := range map[string]agent.NodesFault{
		"pull": {Message: "no route to host"}, "boot": {Message: node.ErrHang.Error(), Hangs: true}, "done": {},
	} {
		if got, err := n.before(t.Context(), "", agent.NodesPhase{Node: "w1", Phase: phase}); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", phase, got, err, want)
		}
	}
}
