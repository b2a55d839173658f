package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/layersim/layersim/sim/builder"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/node"
	"github.com/layersim/layersim/sim/registry"
)

// earth is layersim and a registry, as agents of machines see them.
type earth struct {
	asker  *Asker
	proxy  *url.URL
	roots  *x509.CertPool
	image  string
	faults map[string]NodesFault // by phase

	mu   sync.Mutex
	news []string
}

func newEarth(t *testing.T) *earth {
	t.Helper()
	w := &earth{roots: x509.NewCertPool(), faults: map[string]NodesFault{}}
	answers := NewAnswers("secret")
	Answer(answers, NodesTellPath, func(_ context.Context, _ string, n NodesNews) (struct{}, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.news = append(w.news, fmt.Sprintf("%d.%d %s %s %s", n.Machine, n.Serial, n.Node.Node, n.Node.Event, n.Node.Message))
		return struct{}{}, nil
	})
	Answer(answers, NodesBeforePath, func(_ context.Context, _ string, p NodesPhase) (NodesFault, error) { return w.faults[p.Phase], nil })
	server := httptest.NewServer(answers)
	t.Cleanup(server.Close)
	w.asker = &Asker{URL: server.URL, Token: "secret", From: "node-agents"}

	r := registry.New(registry.Options{Hosts: []string{"quay.io"}})
	r.SetAccount(registry.Account{Name: "installer", Password: "pass", Pull: []string{"*"}})
	base, err := builder.BaseImage(builder.BaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	digest, err := r.PutImage("quay.io/release/os:1", base)
	if err != nil {
		t.Fatal(err)
	}
	w.image = "quay.io/release/os@" + digest
	certificate, key, err := Certify(r.Hosts()...)
	if err != nil {
		t.Fatal(err)
	}
	w.roots.AppendCertsFromPEM(certificate)
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	front := NewFront(FrontOptions{Registry: r, Certificate: pair})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front.Proxy(l)
	t.Cleanup(func() { _ = front.Close() })
	w.proxy = &url.URL{Scheme: "http", Host: l.Addr().String()}
	return w
}

// agent is one that has its machines, without their kubelets and daemons.
func (w *earth) agent(t *testing.T, dir string) *Nodes {
	t.Helper()
	n := &Nodes{World: w.asker, Proxy: w.proxy, Roots: w.roots, Folder: dir, Options: NodesOptions{Run: "run", Seed: 1},
		Broken: func(err error) { t.Error(err) }}
	if err := n.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *Nodes) must(t *testing.T, o NodesOrder) {
	t.Helper()
	if _, err := n.obey(t.Context(), "layersim", o); err != nil {
		t.Fatalf("%+v: %v", o, err)
	}
}

// An order that is given again while it is carried out waits for the first one.
func TestNodesOrderedTwice(t *testing.T) {
	w := newEarth(t)
	n := w.agent(t, t.TempDir())
	install := NodesOrder{Do: NodeInstall, Name: "w1", Spec: node.HostSpec{Name: "w1", BaseImage: w.image}, User: "installer", Password: "pass"}
	var orders sync.WaitGroup
	for range 20 {
		orders.Go(func() {
			if _, err := n.obey(t.Context(), "layersim", install); err != nil {
				t.Error(err)
			}
		})
	}
	orders.Wait()
}

// An agent carries out orders, each of which may come twice, tells what happens, and the next agent goes on.
func TestNodes(t *testing.T) {
	w, dir := newEarth(t), t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "older"), 0o700); err != nil {
		t.Fatal(err)
	}
	n := w.agent(t, dir)
	if _, err := os.Stat(filepath.Join(dir, "older")); err == nil {
		t.Error("the machines of another run are still there")
	}
	install := NodesOrder{Do: NodeInstall, Name: "w1", Spec: node.HostSpec{Name: "w1", BaseImage: w.image}, User: "installer", Password: "pass"}
	wrong := install
	wrong.Password = "wrong"
	if _, err := n.obey(t.Context(), "", wrong); err == nil || !strings.Contains(err.Error(), "unauthorized") {
		t.Errorf("installed with a wrong password: %v", err)
	}
	reachable := w.proxy
	w.proxy = &url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	n = w.agent(t, dir)
	if _, err := n.obey(t.Context(), "", install); !errors.Is(err, ErrNotYet) {
		t.Errorf("installed while the registry can't be reached: %v", err)
	}
	w.proxy = reachable
	n = w.agent(t, dir)
	orders := []NodesOrder{
		install,
		{Do: NodeProvision, Name: "w2", Spec: node.HostSpec{Name: "w2", BaseImage: w.image}},
		{Do: NodeWrite, Name: "w1", Path: "/etc/a", Content: "by hand"},
		{Do: NodePowerOff, Name: "w2"},
		{Do: NodeRemove, Name: "w2"},
	}
	for _, o := range orders {
		n.must(t, o)
		n.must(t, o)
		n = w.agent(t, dir)
		n.must(t, o)
	}
	w.mu.Lock()
	got := strings.Join(w.news, "\n")
	w.mu.Unlock()
	want := []string{"1.1 w1 boot ", "1.2 w1 drift wrote /etc/a", "2.1 w2 shutdown power lost", "2.2 w2 shutdown machine removed"}
	at := 0
	for _, line := range want { // what was told last may be told again
		next := strings.Index(got[at:], line)
		if next < 0 {
			t.Fatalf("told\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
		at += next
	}
	for line := range strings.SplitSeq(got, "\n") {
		if !strings.Contains(strings.Join(want, "\n")+"\n", line+"\n") {
			t.Errorf("told %q", line)
		}
	}
	if _, err := n.obey(t.Context(), "", NodesOrder{Do: NodePowerOn, Name: "w2"}); err == nil {
		t.Error("an order for a machine that isn't there")
	}

	h := n.fleet.Host("w1")
	for _, tt := range []struct {
		arguments string
		want      NodesOutput
	}{
		{"rpm-ostree status", NodesOutput{Out: h.Status()}},
		{"chroot /host rpm-ostree status", NodesOutput{Out: h.Status()}},
		{"rpm-ostree status --json", NodesOutput{Out: h.StatusJSON()}},
		{"rpm -qa", NodesOutput{Out: h.PackageList()}},
		{"cat /etc/a", NodesOutput{Out: "by hand"}},
		{"cat /etc/b", NodesOutput{Err: "cat: /etc/b: No such file or directory\n", Code: 1}},
		{"reboot", NodesOutput{Err: "error: \"reboot\": a node of layersim knows only rpm-ostree status [--json], rpm -qa, and cat of " +
			"files of its MachineConfig\n", Code: 127}},
	} {
		c := NodesCommand{Node: "w1", Arguments: strings.Fields(tt.arguments)}
		if diff := cmp.Diff(tt.want, c.Run(filepath.Join(dir, "run"))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.arguments, diff)
		}
	}
	if !strings.HasPrefix(h.Status(), "State: idle\nDeployments:\n* ostree-unverified-image:containers-storage:quay.io/release/os@sha256:") {
		t.Errorf("status\n%s", h.Status())
	}
	h.PowerOff()
	for name, want := range map[string]string{"": "is down", "w1": "is down", "w2": `node "w2" not found; there are w1`} {
		if o := (NodesCommand{Node: name, Arguments: []string{"rpm", "-qa"}}).Run(filepath.Join(dir, "run")); o.Code == 0 || !strings.Contains(o.Err, want) {
			t.Errorf("node %q: %+v, want %q", name, o, want)
		}
	}
	if o := (NodesCommand{}).Run(filepath.Join(dir, "none")); o.Code == 0 || !strings.Contains(o.Err, "there are no nodes") {
		t.Errorf("without nodes: %+v", o)
	}
}

// Layersim decides what goes wrong on a machine, and until it has, nothing goes on.
func TestNodesFault(t *testing.T) {
	f := &NodesFault{Message: "no", Hangs: true}
	if err := fmt.Errorf("boot: %w", f); !errors.Is(err, node.ErrHang) || err.Error() != "boot: no" {
		t.Errorf("%v", err)
	}
	if f.Hangs = false; errors.Is(f, node.ErrHang) {
		t.Error("it hangs")
	}
	w := newEarth(t)
	n := w.agent(t, t.TempDir())
	n.World = &Asker{URL: "http://127.0.0.1:1", Token: "secret", Patience: time.Millisecond}
	done := make(chan struct{})
	go func() {
		n.insist(t.Context(), NodesTellPath, NodesNews{Node: &history.Node{}}, nil)
		close(done)
	}()
	select {
	case <-done:
		t.Error("it goes on though nobody heard it")
	case <-time.After(50 * time.Millisecond):
	}
}

// Of two agents one waits, until the other ends.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second agent: %v", err)
	}
	unlock()
	if unlock, err = lock(t.Context(), dir); err != nil {
		t.Error(err)
	} else {
		unlock()
	}
}

// What can't be kept ends the process; what was not finished is not read.
func TestFolder(t *testing.T) {
	var broken error
	dir := t.TempDir()
	f := folder{registry.Folder(dir), func(err error) { broken = err }}
	f.Save("host/w1", []byte("a"))
	f.Save("image/sha256:1", []byte("b"))
	f.Save("host/w2", []byte("c"))
	f.Save("host/w2", nil)
	f.Save("host/w3", nil)
	if err := os.WriteFile(filepath.Join(dir, ".1"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := f.Load()
	if diff := cmp.Diff(map[string][]byte{"host/w1": []byte("a"), "image/sha256:1": []byte("b")}, got); diff != "" || err != nil || broken != nil {
		t.Errorf("%v %v\n%s", err, broken, diff)
	}
	f.Folder = registry.Folder(filepath.Join(dir, ".1")) // where no folder can be
	f.Save("host/w1", []byte("a"))
	if broken == nil || !strings.Contains(broken.Error(), "keep host/w1") {
		t.Errorf("broken: %v", broken)
	}
}
