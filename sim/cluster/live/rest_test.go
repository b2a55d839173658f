package live

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// What a page of metrics says of pauses.
func TestNextReconcile(t *testing.T) {
	const head = "# HELP other x\n# TYPE other counter\nother 7\n# HELP mco_next_reconcile_timestamp_seconds x\n# TYPE mco_next_reconcile_timestamp_seconds gauge\n"
	metric := func(controller, value string) string {
		return "mco_next_reconcile_timestamp_seconds{controller=\"" + controller + "\"} " + value + "\n"
	}
	for _, c := range []struct {
		name, page string
		want       time.Time
		err        error
	}{
		{"nobody pauses", head + metric("node", "0") + metric("drain", "0"), time.Time{}, nil},
		{"one pauses", head + metric("node", "0") + metric("drain", "1.7000000005e+09"), time.UnixMilli(1_700_000_000_500), nil},
		{"two pause", head + metric("node", "1.700000001e+09") + metric("drain", "1.7e+09"), time.Unix(1_700_000_000, 0), nil},
		{"upstream's metrics", "# TYPE other counter\nother 7\n", time.Time{}, errUntold},
	} {
		got, err := nextReconcile(strings.NewReader(c.page))
		if !got.Equal(c.want) || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v; want %v, %v", c.name, got, err, c.want, c.err)
		}
	}
	if _, err := nextReconcile(strings.NewReader("<html>no metrics")); err == nil || errors.Is(err, errUntold) {
		t.Errorf("a page that is none: %v", err)
	}
}

// A cluster of programs that tell when they look again is at rest early; one that looks again soon, can't tell or isn't
// reached, keeps it from that.
func TestPausing(t *testing.T) {
	for _, c := range []struct {
		name  string
		next  func(now time.Time) (time.Time, error)
		quiet bool // nothing has changed for longer than anybody pauses
		want  bool
	}{
		{"waits for events", func(time.Time) (time.Time, error) { return time.Time{}, nil }, false, false},
		{"looks again soon", func(now time.Time) (time.Time, error) { return now.Add(time.Second), nil }, false, true},
		{"looks now", func(now time.Time) (time.Time, error) { return now.Add(-time.Second), nil }, false, true},
		{"looks again late", func(now time.Time) (time.Time, error) { return now.Add(time.Hour), nil }, false, false},
		{"can't be asked", func(time.Time) (time.Time, error) { return time.Time{}, errors.New("no route") }, false, true},
		{"says nothing", nil, false, true},
		{"says nothing for long", nil, true, false},
	} {
		i := &incarnation{}
		if c.next != nil {
			i.next = func(context.Context) (time.Time, error) { return c.next(time.Now()) }
		}
		e := &Engine{ctx: t.Context(), start: time.Now().Add(-time.Hour), processes: []*process{{running: []*incarnation{i}}}}
		e.stillness.begun, e.stillness.moved = true, e.Elapsed()
		if c.quiet {
			e.stillness.moved -= Quiet
		}
		if got := e.pausing(); got != c.want {
			t.Errorf("%s: pausing is %v, want %v", c.name, got, c.want)
		}
	}
}
