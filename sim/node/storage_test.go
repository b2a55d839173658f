package node_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/node"
)

// memory is a storage that counts, and after a number of saves lets the process crash.
type memory struct {
	kept    map[string][]byte
	saves   int
	crashAt int
}

func (m *memory) Save(key string, value []byte) {
	m.saves++
	m.kept[key] = bytes.Clone(value)
	if value == nil {
		delete(m.kept, key)
	}
	if m.saves == m.crashAt {
		panic(crash{})
	}
}

func (m *memory) Load() (map[string][]byte, error) { return maps.Clone(m.kept), nil }

// stored is a lab whose machines are kept. Whatever is told twice comes once into the records.
func stored(t *testing.T, more ...func(*node.FleetOptions)) (*lab, *memory, func()) {
	t.Helper()
	m := &memory{kept: map[string][]byte{}}
	var l *lab
	told := map[int]int{}
	var options node.FleetOptions
	l = newLab(t, func(o *node.FleetOptions) {
		o.Storage, o.Observe = m, nil
		o.RevertReboots = 2
		o.Tell = func(machine, serial int, r history.Node) {
			if serial == told[machine]+1 {
				told[machine] = serial
				l.records = append(l.records, r)
			} else if serial > told[machine] {
				t.Errorf("machine %d: record %d was not told", machine, told[machine]+1)
			}
		}
		for _, option := range more {
			option(o)
		}
		options = *o
	})
	// What is due after the end of a fleet is due in the next one.
	return l, m, func() {
		t.Helper()
		l.fleet = node.NewFleet(options)
		if err := l.fleet.Restore(); err != nil {
			t.Fatal(err)
		}
		l.start()
		for _, h := range l.fleet.Hosts() {
			options.Wake(node.KubeletName, h.Name())
			options.Wake(node.DaemonName, h.Name())
		}
	}
}

// life takes a machine through all that it can be in: it is made, gets a pod and an image, is reverted with two reboots. It
// returns what is seen of it.
func life(t *testing.T, prepare func(*lab, *memory)) (states []string) {
	t.Helper()
	l, m, restore := stored(t)
	l.restart = restore
	l.start()
	until := func(what string, done func() bool) {
		t.Helper()
		l.until(what, 2*time.Hour, done)
	}
	if err := l.fleet.Provision(node.HostSpec{Name: "w1", Roles: []string{"worker"}, BaseImage: l.base, Config: "rendered-worker-1"}); err != nil {
		t.Fatal(err)
	}
	prepare(l, m)
	until("join", l.done("w1"))
	l.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web"}, Spec: corev1.PodSpec{NodeName: "w1",
		Containers: []corev1.Container{{Name: "web", Image: "quay.io/web/web:1"}}}})
	l.target("w1", "rendered-layered-1", l.layered)
	until("layered", l.done("w1"))
	states = append(states, l.fleet.Host("w1").Status(), l.fleet.Host("w1").PackageList())
	l.fleet.Host("w1").WriteFile("/etc/other", "by hand")
	l.target("w1", "rendered-worker-1", "")
	until("base", l.done("w1"))
	content, _ := l.fleet.Host("w1").ReadFile("/etc/other")
	var pod corev1.Pod
	if err := l.client.Get(l.ctx, client.ObjectKey{Namespace: "apps", Name: "web"}, &pod); err != nil {
		t.Fatal(err)
	}
	n := l.node("w1")
	for key := range n.Annotations { // one that ended in the wrong moment asks again
		if strings.Contains(key, "rain") {
			delete(n.Annotations, key)
		}
	}
	states = append(states, l.fleet.Host("w1").Status(), content, fmt.Sprint(pod.Status.ContainerStatuses[0].RestartCount),
		fmt.Sprint(n.Annotations, n.Spec.Unschedulable, n.Status.NodeInfo))
	for _, r := range l.records {
		states = append(states, fmt.Sprintf("%s %d %s %s", r.Event, r.Boot, r.BootID, r.Digest))
	}
	return states
}

// A Fleet may end at any time: the one after it goes on with the same machines, and the same is seen of them.
func TestRestore(t *testing.T) {
	var undisturbed *memory
	var before int
	want := life(t, func(_ *lab, m *memory) { undisturbed, before = m, m.saves })
	if undisturbed.saves-before < 25 {
		t.Fatalf("only %d moments at which something is saved", undisturbed.saves)
	}
	compare := func(moment string, prepare func(*lab, *memory)) (l *lab) {
		t.Helper()
		got := life(t, func(in *lab, m *memory) { l = in; prepare(in, m) })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-undisturbed +restored):\n%s", moment, diff)
		}
		return l
	}
	byHand := 0
	for save := before + 1; save <= undisturbed.saves; save++ {
		func() {
			defer func() {
				if p := recover(); p == (crash{}) { // what is not an agent's doing has nobody to start it again
					byHand++
				} else if p != nil {
					panic(p)
				}
			}()
			compare(fmt.Sprintf("after save %d", save), func(_ *lab, m *memory) { m.crashAt = save })
		}()
	}
	if byHand > 1 {
		t.Errorf("%d crashes by hand, want that of the file", byHand)
	}
	if l := compare("after all writes", func(l *lab, _ *memory) { l.crashes = true }); l.crashed < 20 {
		t.Errorf("only %d crashes", l.crashed)
	}
}

// A machine that is in the middle of something when its Fleet ends is in the middle of it in the next one.
func TestRestoreInTheMiddle(t *testing.T) {
	l, _, restore := stored(t)
	l.start()
	if err := l.fleet.Install(node.HostSpec{Name: "w1", Roles: []string{"worker"}, BaseImage: l.base, Config: "rendered-worker-1"}); err != nil {
		t.Fatal(err)
	}
	l.until("join", time.Hour, l.done("w1"))
	l.target("w1", "rendered-layered-1", l.layered)
	event := func(name string) func() bool {
		return func() bool {
			return slices.ContainsFunc(l.records, func(r history.Node) bool { return r.Event == name })
		}
	}
	check := func(when string) {
		t.Helper()
		before := l.fleet.Host("w1")
		status, running, boots := before.Status(), before.Running(l.clock.Now()), before.Boots()
		records := len(l.records)
		restore()
		after := l.fleet.Host("w1")
		if after == before {
			t.Fatal("the same machine")
		}
		if got := after.Status(); got != status {
			t.Errorf("%s: status\n%s\nwant\n%s", when, got, status)
		}
		if after.Running(l.clock.Now()) != running || after.Boots() != boots {
			t.Errorf("%s: running %t, boots %d; want %t, %d", when, after.Running(l.clock.Now()), after.Boots(), running, boots)
		}
		if len(l.records) != records {
			t.Errorf("%s: %v was told again", when, l.records[records:])
		}
		if diff := cmp.Diff(before.Spec(), after.Spec()); diff != "" {
			t.Errorf("%s: %s", when, diff)
		}
	}
	l.until("rebase", time.Hour, event("rebase"))
	check("while it pulls")
	l.until("stage", time.Hour, event("stage"))
	check("with a staged deployment")
	if d := l.fleet.Host("w1").Deployments(); !d[0].Staged || !d[0].Layered {
		t.Errorf("deployments %v, want the first one staged", d)
	}
	l.until("shutdown", time.Hour, event("shutdown"))
	check("while it reboots")
	l.until("done", time.Hour, l.done("w1"))
	check("at rest")
}

// What a Fleet had saved but could not tell any more is told by the next one, in order, and a machine that was removed is gone.
func TestUntold(t *testing.T) {
	m := &memory{kept: map[string][]byte{}}
	var at map[string][]byte
	l := newLab(t, func(o *node.FleetOptions) {
		o.Storage, o.Observe = m, nil
		o.Tell = func(_, _ int, r history.Node) {
			if r.Event == "shutdown" && at == nil { // the process ends here
				at = maps.Clone(m.kept)
			}
		}
	})
	for _, name := range []string{"w1", "w2"} {
		if err := l.fleet.Install(node.HostSpec{Name: name, BaseImage: l.base}); err != nil {
			t.Fatal(err)
		}
	}
	var told []string
	revive := func(state map[string][]byte) *node.Fleet {
		t.Helper()
		told = nil
		f := node.NewFleet(node.FleetOptions{Clock: l.clock, Transport: l.registry.Transport, Storage: &memory{kept: state},
			Tell: func(machine, serial int, r history.Node) {
				if r.Event == "shutdown" || r.Event == "notready" {
					told = append(told, fmt.Sprintf("%d.%d %s %s", machine, serial, r.Node, r.Event))
				}
			}})
		if err := f.Restore(); err != nil {
			t.Fatal(err)
		}
		return f
	}
	l.fleet.PowerOff("w1")
	f := revive(at)
	if diff := cmp.Diff([]string{"1.2 w1 shutdown", "1.3 w1 notready"}, told); diff != "" {
		t.Errorf("(-want +told):\n%s", diff)
	}
	if f.Host("w1").Running(l.clock.Now()) || !f.Host("w2").Running(l.clock.Now()) {
		t.Error("the power is not as it was")
	}
	at = nil
	l.fleet.Remove("w2")
	f = revive(at)
	if !slices.Contains(told, "2.2 w2 shutdown") || f.Has("w2") {
		t.Errorf("w2 is there: %t; told: %v", f.Has("w2"), told)
	}
	// A machine that takes the place of another is not taken for it.
	if err := f.Provision(node.HostSpec{Name: "w2", BaseImage: l.base}); err != nil {
		t.Fatal(err)
	}
	told = nil
	if f.PowerOff("w2"); !slices.Equal(told, []string{"3.1 w2 shutdown"}) {
		t.Errorf("told: %v, want a third machine", told)
	}
	if f = revive(m.kept); f.Has("w2") || slices.Contains(told, "2.2 w2 shutdown") {
		t.Errorf("w2 is there: %t; told: %v", f.Has("w2"), told)
	}
}

// A storage that can't be read is an error that names what it is about.
func TestBadStorage(t *testing.T) {
	if err := node.NewFleet(node.FleetOptions{}).Restore(); err == nil {
		t.Error("restored from nowhere")
	}
	for key, value := range map[string]string{"host/w1": "{", "image/a": "[]", "host/w2": `{"staged": {"digest": "sha256:1"}}`} {
		f := node.NewFleet(node.FleetOptions{Storage: &memory{kept: map[string][]byte{key: []byte(value)}}})
		if err := f.Restore(); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s = %s: %v", key, value, err)
		}
	}
	f := node.NewFleet(node.FleetOptions{Storage: broken{}})
	if err := f.Restore(); err == nil || !strings.Contains(err.Error(), "no disk") {
		t.Errorf("no error of the storage: %v", err)
	}
}

type broken struct{}

func (broken) Save(string, []byte)              {}
func (broken) Load() (map[string][]byte, error) { return nil, errors.New("no disk") }

// counting notes the paths of requests.
type counting struct {
	http.RoundTripper
	paths *[]string
}

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	*c.paths = append(*c.paths, r.Method+" "+r.URL.Path)
	return c.RoundTripper.RoundTrip(r)
}

// A machine knows what it has: files, layers, and that it has joined already.
func TestRestoreKnowledge(t *testing.T) {
	var paths []string
	l, _, restore := stored(t, func(o *node.FleetOptions) {
		inner := o.Transport
		o.Transport = func(caller string) http.RoundTripper { return counting{inner(caller), &paths} }
	})
	l.start()
	if err := l.fleet.Provision(node.HostSpec{Name: "w1", Roles: []string{"worker"}, BaseImage: l.base, Config: "rendered-worker-1"}); err != nil {
		t.Fatal(err)
	}
	l.until("join", time.Hour, l.done("w1"))
	l.target("w1", "rendered-layered-1", l.layered)
	l.until("layered", time.Hour, l.done("w1"))
	restore()
	if content, _ := l.fleet.Host("w1").ReadFile("/etc/motd"); content != "worker\n" {
		t.Errorf("/etc/motd has %q", content)
	}
	paths = nil
	l.target("w1", "rendered-worker-1", "")
	l.until("base", time.Hour, l.done("w1"))
	blobs := slices.DeleteFunc(paths, func(p string) bool { return !strings.Contains(p, "/blobs/") })
	if len(blobs) > 1 {
		t.Errorf("got %v; want the image's configuration only", blobs)
	}

	if err := l.client.Delete(l.ctx, l.node("w1")); err != nil {
		t.Fatal(err)
	}
	restore()
	l.until("rest", 0, func() bool { return false })
	if err := l.client.Get(l.ctx, client.ObjectKey{Name: "w1"}, &corev1.Node{}); err == nil {
		t.Error("the kubelet, which has not ended, registered its Node again")
	}
	l.fleet.Host("w1").Reboot("by hand")
	l.until("joined again", time.Hour, l.done("w1"))
	if pivot, ok := l.node("w1").Annotations[layering.FirstPivotConfig]; ok {
		t.Errorf("it pivots for the first time again, to %q", pivot)
	}
}
