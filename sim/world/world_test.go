package world

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/store"
)

var start = time.Date(2025, 2, 12, 19, 0, 0, 0, time.UTC)

// newWorld returns a world with namespace default and a history.
func newWorld(t *testing.T, seed uint64, lag Lag) (*World, *history.History) {
	t.Helper()
	clock := NewClock(start)
	s := store.New(store.Options{Clock: clock, Scheme: clientgoscheme.Scheme, Seed: seed})
	h := &history.History{}
	recorder := &history.Recorder{History: h, Now: clock.Elapsed, Revision: s.Revision}
	s.OnChange(func(c *store.Change) {
		recorder.Add(history.Record{Revision: c.Revision, Change: &history.Change{Author: c.Author, Verb: c.Verb, GVK: c.GVK, Name: c.Name}})
	})
	w := New(Options{Store: s, Clock: clock, Seed: seed, Recorder: recorder, Lag: lag})
	for _, name := range []string{"default", layering.Namespace} {
		if err := admin(w).Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	return w, h
}

func admin(w *World) client.Client { return w.Store.Client(store.ClientOptions{Author: "admin"}) }

type reconcileFunc func(context.Context, component.Env, reconcile.Request) (reconcile.Result, error)

// declare makes a component that watches ConfigMaps.
func declare(name string, f reconcileFunc) component.Component {
	return component.Component{
		Name: name, Watches: []component.Watch{{Object: &corev1.ConfigMap{}}},
		New: func(env component.Env) (reconcile.Reconciler, error) {
			return reconcile.Func(func(ctx context.Context, r reconcile.Request) (reconcile.Result, error) { return f(ctx, env, r) }), nil
		},
	}
}

func run(t *testing.T, w *World) {
	t.Helper()
	for range 100_000 {
		outcome, err := w.Step()
		if err != nil {
			t.Fatal(err)
		}
		if outcome == DeadEnd {
			return
		}
	}
	t.Fatal("the world doesn't come to an end")
}

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: data}
}

// count reads the number in a ConfigMap, adds one, and writes it back until it is n.
func counter(n int) reconcileFunc {
	return func(ctx context.Context, env component.Env, r reconcile.Request) (reconcile.Result, error) {
		var cm corev1.ConfigMap
		if err := env.Client.Get(ctx, r.NamespacedName, &cm); err != nil {
			return reconcile.Result{}, err
		}
		i, err := strconv.Atoi(cm.Data["n"])
		if err != nil || i >= n {
			return reconcile.Result{}, err
		}
		cm.Data["n"] = strconv.Itoa(i + 1)
		return reconcile.Result{}, env.Client.Update(ctx, &cm)
	}
}

func TestSameSeedSameHistory(t *testing.T) {
	fingerprint := func(seed uint64) string {
		w, h := newWorld(t, seed, Lag{OneIn: 3, Most: time.Second})
		for _, name := range []string{"a", "b", "c"} {
			if _, err := w.Start(name, 1, declare(name, counter(10))); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"x", "y"} {
			if err := admin(w).Create(t.Context(), configMap(name, map[string]string{"n": "0"})); err != nil {
				t.Fatal(err)
			}
		}
		run(t, w)
		var text strings.Builder
		if err := history.Write(&text, h); err != nil {
			t.Fatal(err)
		}
		return text.String()
	}
	different := map[string]bool{}
	for seed := range uint64(50) {
		first := fingerprint(seed)
		different[first] = true
		for range 2 {
			if again := fingerprint(seed); again != first {
				t.Fatalf("seed %d gives two histories:\n%s\nand\n%s", seed, first, again)
			}
		}
	}
	if len(different) < 25 {
		t.Errorf("50 seeds give only %d histories: the schedule doesn't depend on the seed", len(different))
	}
}

func TestConflictsAreRealAndHeal(t *testing.T) {
	conflicts := 0
	for seed := range uint64(20) {
		w, _ := newWorld(t, seed, Lag{OneIn: 2, Most: time.Second})
		w.Store.OnRefused(func(*store.Request, error) { conflicts++ })
		for _, name := range []string{"a", "b"} {
			if _, err := w.Start(name, 1, declare(name, counter(20))); err != nil {
				t.Fatal(err)
			}
		}
		if err := admin(w).Create(t.Context(), configMap("x", map[string]string{"n": "0"})); err != nil {
			t.Fatal(err)
		}
		run(t, w)
		var cm corev1.ConfigMap
		if err := admin(w).Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "x"}, &cm); err != nil || cm.Data["n"] != "20" {
			t.Errorf("seed %d: counted to %q, %v", seed, cm.Data["n"], err)
		}
	}
	if conflicts == 0 {
		t.Error("no write ever met a conflict: views don't lag")
	}
}

func TestBackoff(t *testing.T) {
	w, _ := newWorld(t, 1, Lag{})
	var at []time.Duration
	_, err := w.Start("c", 1, declare("c", func(context.Context, component.Env, reconcile.Request) (reconcile.Result, error) {
		at = append(at, w.Clock.Elapsed())
		switch {
		case len(at) < 5:
			return reconcile.Result{}, errors.New("not yet")
		case len(at) == 5:
			return reconcile.Result{RequeueAfter: time.Minute}, nil
		}
		return reconcile.Result{}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := admin(w).Create(t.Context(), configMap("x", nil)); err != nil {
		t.Fatal(err)
	}
	run(t, w)
	ms := time.Millisecond
	want := fmt.Sprint([]time.Duration{0, 5 * ms, 15 * ms, 35 * ms, 75 * ms, time.Minute + 75*ms})
	if got := fmt.Sprint(at); got != want {
		t.Errorf("reconciled at %s, not %s", got, want)
	}
	if got := backoff(40); got != 1000*time.Second {
		t.Errorf("longest back-off is %s", got)
	}
}

func TestHotLoop(t *testing.T) {
	w, _ := newWorld(t, 1, Lag{})
	if _, err := w.Start("c", 1, declare("c", counter(1_000_000))); err != nil {
		t.Fatal(err)
	}
	if err := admin(w).Create(t.Context(), configMap("x", map[string]string{"n": "0"})); err != nil {
		t.Fatal(err)
	}
	var hot *HotLoopError
	for range 100_000 {
		if _, err := w.Step(); err != nil {
			if !errors.As(err, &hot) || hot.Component != "c" || hot.Key != "default/x" {
				t.Fatalf("%v doesn't name component and key", err)
			}
			return
		}
	}
	t.Fatal("the hot loop was not found")
}

// A component that writes two ConfigMaps one after the other, and is crashed at each write, before and after.
func TestCrashAtEachWrite(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; n <= 2; n++ {
			w, h := newWorld(t, uint64(n), Lag{})
			starts := 0
			c := declare("c", func(ctx context.Context, env component.Env, r reconcile.Request) (reconcile.Result, error) {
				if r.Name != "x" {
					return reconcile.Result{}, nil
				}
				for _, name := range []string{"one", "two"} {
					if err := env.Client.Create(ctx, configMap(name, nil)); client.IgnoreAlreadyExists(err) != nil {
						return reconcile.Result{}, err
					}
				}
				return reconcile.Result{}, nil
			})
			inner := c.New
			c.New = func(env component.Env) (reconcile.Reconciler, error) { starts++; return inner(env) }
			p, err := w.Start("c", 1, c)
			if err != nil {
				t.Fatal(err)
			}
			fired := ""
			p.CrashAt(Crash{After: after, Write: n, Fired: func(m string) { fired = m }})
			if err := admin(w).Create(t.Context(), configMap("x", nil)); err != nil {
				t.Fatal(err)
			}
			run(t, w)
			var list corev1.ConfigMapList
			if err := admin(w).List(t.Context(), &list); err != nil {
				t.Fatal(err)
			}
			if fired == "" || starts != 2 || len(list.Items) != 3 {
				t.Errorf("after=%v write %d: fired %q, %d starts, %d objects", after, n, fired, starts, len(list.Items))
			}
			crashed := false
			for _, r := range h.Records {
				crashed = crashed || r.Component != nil && r.Component.Event == "crashed"
			}
			if !crashed {
				t.Error("the crash is not in the history")
			}
			if w.Clock.Elapsed() < RestartDelay {
				t.Errorf("it was back after %s already", w.Clock.Elapsed())
			}
		}
	}
}

func TestPanicRestartsTheProcess(t *testing.T) {
	w, h := newWorld(t, 1, Lag{})
	calls := 0
	_, err := w.Start("c", 1, declare("c", func(context.Context, component.Env, reconcile.Request) (reconcile.Result, error) {
		calls++
		if calls == 1 {
			panic("oops")
		}
		return reconcile.Result{}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := admin(w).Create(t.Context(), configMap("x", nil)); err != nil {
		t.Fatal(err)
	}
	run(t, w)
	for _, r := range h.Records {
		if r.Component != nil && r.Component.Event == "panic" && strings.Contains(r.Component.Message, "oops in c, request default/x") {
			if calls != 2 {
				t.Errorf("%d calls, not one before and one after the restart", calls)
			}
			return
		}
	}
	t.Error("the panic is not in the history")
}

func TestReplicasTakeOver(t *testing.T) {
	w, _ := newWorld(t, 1, Lag{})
	p, err := w.Start("c", 2, declare("c", counter(3)))
	if err != nil {
		t.Fatal(err)
	}
	if p.Leader() != "c-0" {
		t.Fatalf("%q leads", p.Leader())
	}
	p.CrashAt(Crash{Write: 1})
	if err := admin(w).Create(t.Context(), configMap("x", map[string]string{"n": "0"})); err != nil {
		t.Fatal(err)
	}
	run(t, w)
	if p.Leader() != "c-1" || w.Clock.Elapsed() < LeaseDuration {
		t.Errorf("%q leads after %s", p.Leader(), w.Clock.Elapsed())
	}
	if err := p.Restart(); err != nil {
		t.Fatal(err)
	}
	if p.Leader() != "c-0" {
		t.Errorf("after a graceful restart %q leads", p.Leader())
	}
	var lease coordinationv1.Lease
	if err := admin(w).Get(t.Context(), client.ObjectKey{Namespace: layering.Namespace, Name: "c"}, &lease); err != nil {
		t.Fatal(err)
	}
	if *lease.Spec.HolderIdentity != "c-0" || *lease.Spec.LeaseTransitions != 2 {
		t.Errorf("the lease is held by %q after %d transitions", *lease.Spec.HolderIdentity, *lease.Spec.LeaseTransitions)
	}
	p.Stop()
	if p.Running() {
		t.Error("it runs after it was stopped")
	}
	if err := p.StartAgain(); err != nil || !p.Running() {
		t.Errorf("it doesn't run after a start: %v", err)
	}
}

// A view may lag, but each kind moves forward only, one revision at a time.
func TestViewsOnlyMoveForward(t *testing.T) {
	w, _ := newWorld(t, 7, Lag{OneIn: 2, Most: time.Second})
	last := -1
	lagged := false
	_, err := w.Start("c", 1, declare("c", func(ctx context.Context, env component.Env, r reconcile.Request) (reconcile.Result, error) {
		var cached, live corev1.ConfigMap
		if err := env.Client.Get(ctx, r.NamespacedName, &cached); err != nil {
			return reconcile.Result{}, err
		}
		if err := env.Live.Get(ctx, r.NamespacedName, &live); err != nil {
			return reconcile.Result{}, err
		}
		n, _ := strconv.Atoi(cached.Data["n"])
		m, _ := strconv.Atoi(live.Data["n"])
		if n < last || m < n {
			t.Errorf("cache shows %d after %d, server %d", n, last, m)
		}
		lagged = lagged || n < m
		last = n
		return reconcile.Result{}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Start("writer", 1, declare("writer", counter(200))); err != nil {
		t.Fatal(err)
	}
	if err := admin(w).Create(t.Context(), configMap("x", map[string]string{"n": "0"})); err != nil {
		t.Fatal(err)
	}
	run(t, w)
	if last != 200 || !lagged {
		t.Errorf("ended at %d, lagged %v", last, lagged)
	}
}

func TestDelayCoalesces(t *testing.T) {
	w, _ := newWorld(t, 3, Lag{})
	calls := 0
	c := declare("c", func(context.Context, component.Env, reconcile.Request) (reconcile.Result, error) {
		calls++
		return reconcile.Result{}, nil
	})
	c.Delay = 5 * time.Second
	if _, err := w.Start("c", 1, c); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Start("writer", 1, declare("writer", counter(100))); err != nil {
		t.Fatal(err)
	}
	if err := admin(w).Create(t.Context(), configMap("x", map[string]string{"n": "0"})); err != nil {
		t.Fatal(err)
	}
	run(t, w)
	if calls != 1 {
		t.Errorf("a burst of 100 changes led to %d reconciles", calls)
	}
}

func TestDeadlinesDontKeepAWorldAlive(t *testing.T) {
	w, _ := newWorld(t, 1, Lag{})
	fired := false
	w.Deadline(time.Hour, func() { fired = true })
	if outcome, err := w.Step(); outcome != DeadEnd || err != nil {
		t.Fatalf("outcome %v, %v", outcome, err)
	}
	if !w.Jump() {
		t.Fatal("there is nothing to jump to")
	}
	run(t, w)
	if !fired || w.Clock.Elapsed() != time.Hour {
		t.Errorf("fired %v at %s", fired, w.Clock.Elapsed())
	}
}
