package manager_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/controllers/manager"
)

func TestPauses(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	clock := clocktesting.NewFakeClock(start)
	var result reconcile.Result
	var failure error
	pauses := &manager.Pauses{}
	reconcilers := map[string]reconcile.Reconciler{}
	for _, name := range []string{"build", "drain"} {
		c := pauses.Follow(component.Component{Name: name, New: func(component.Env) (reconcile.Reconciler, error) {
			return reconcile.Func(func(context.Context, reconcile.Request) (reconcile.Result, error) {
				if next := pauses.Next(); next.IsZero() || next.After(clock.Now()) {
					t.Errorf("while %s looks: %s, not now", name, next)
				}
				return result, failure
			}), nil
		}})
		var err error
		if reconcilers[name], err = c.New(component.Env{Clock: clock}); err != nil {
			t.Fatal(err)
		}
	}
	look := func(name, key string, r reconcile.Result, err error) {
		t.Helper()
		result, failure = r, err
		request := reconcile.Request{}
		request.Name = key
		if _, got := reconcilers[name].Reconcile(t.Context(), request); !errors.Is(got, err) {
			t.Errorf("the reconciler's error is lost: %v", got)
		}
	}
	expect := func(what string, build, drain time.Duration) {
		t.Helper()
		metric := "# HELP mco_next_reconcile_timestamp_seconds When the controller looks again by itself at the earliest, as Unix time; 0 while it waits for events only.\n" +
			"# TYPE mco_next_reconcile_timestamp_seconds gauge\n"
		var next time.Time
		for name, wait := range map[string]time.Duration{"build": build, "drain": drain} {
			value := 0.0
			if wait > 0 {
				at := start.Add(wait)
				value = float64(at.UnixMilli()) / 1000
				if next.IsZero() || at.Before(next) {
					next = at
				}
			}
			metric += fmt.Sprintf("mco_next_reconcile_timestamp_seconds{controller=%q} %v\n", name, value)
		}
		if err := testutil.CollectAndCompare(pauses, strings.NewReader(metric)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := pauses.Next(); !got.Equal(next) {
			t.Errorf("%s: next is %s instead of %s", what, got, next)
		}
	}
	expect("before all", 0, 0)
	look("build", "a", reconcile.Result{RequeueAfter: time.Minute}, nil)
	look("build", "b", reconcile.Result{RequeueAfter: 5 * time.Second}, nil)
	look("drain", "a", reconcile.Result{}, nil)
	expect("the earlier of two pauses", 5*time.Second, 0)
	look("build", "b", reconcile.Result{}, nil)
	expect("one of them is over", time.Minute, 0)
	clock.Step(time.Second)
	broken := errors.New("broken")
	look("drain", "a", reconcile.Result{}, broken)
	expect("the first failure", time.Minute, time.Second+5*time.Millisecond)
	look("drain", "a", reconcile.Result{}, broken)
	expect("the second failure", time.Minute, time.Second+10*time.Millisecond)
	for range 40 {
		look("drain", "a", reconcile.Result{}, broken)
	}
	expect("many failures", time.Minute, 1001*time.Second)
	look("drain", "a", reconcile.Result{}, nil)
	look("drain", "a", reconcile.Result{}, broken)
	expect("a failure after a success", time.Minute, time.Second+5*time.Millisecond)
}
