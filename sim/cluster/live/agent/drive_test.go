package agent

import (
	"context"
	"errors"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/sim/history"
)

// A reconcile that fails or panics is told, with its key; one that goes well isn't.
func TestWatched(t *testing.T) {
	var told []*history.Component
	outcomes := map[string]func() error{
		"well":   func() error { return nil },
		"fails":  func() error { return errors.New("no luck") },
		"panics": func() error { panic("lost") },
	}
	c := Watched(component.Component{Name: "a", New: func(component.Env) (reconcile.Reconciler, error) {
		return reconcile.Func(func(_ context.Context, r reconcile.Request) (reconcile.Result, error) {
			return reconcile.Result{}, outcomes[r.Name]()
		}), nil
	}}, func(_ context.Context, failure *history.Component) { told = append(told, failure) })
	r, err := c.New(component.Env{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ key, event, message, err string }{
		{"well", "", "", ""}, {"fails", "error", "no luck", "no luck"}, {"panics", "panic", "lost\n", "panic: lost"},
	} {
		told = nil
		request := reconcile.Request{}
		request.Name = want.key
		_, err := r.Reconcile(t.Context(), request)
		if (err == nil) != (want.err == "") || err != nil && err.Error() != want.err {
			t.Errorf("%s: %v, want %q", want.key, err, want.err)
		}
		if want.event == "" {
			if len(told) > 0 {
				t.Errorf("%s: told %+v", want.key, told[0])
			}
			continue
		}
		if len(told) != 1 || told[0].Name != "a" || told[0].Event != want.event || told[0].Key != "/"+want.key ||
			!strings.HasPrefix(told[0].Message, want.message) {
			t.Errorf("%s: told %+v", want.key, told)
		}
	}
}

// What wakes nobody, or one who has enough to do, doesn't block.
func TestWakes(t *testing.T) {
	w := NewWakes([]component.Component{{Name: "a"}})
	w.Wake("nobody", "key")
	for range cap(w["a"]) + 1 {
		w.Wake("a", "key")
	}
	if e := <-w["a"]; e.Object.GetName() != "key" {
		t.Errorf("woken for %q", e.Object.GetName())
	}
}
