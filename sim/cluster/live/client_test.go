package live

import (
	"context"
	"errors"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A read is repeated while the API server may be out of reach, and for no other reason.
func TestInsist(t *testing.T) {
	gone, broken := apierrors.NewServiceUnavailable("the API server did not answer"), errors.New("broken")
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no roles yet"))
	for _, c := range []struct {
		name    string
		outage  time.Duration
		answers []error
		want    error
	}{
		{"answers again", time.Minute, []error{gone, nil}, nil},
		{"has just been started", time.Minute, []error{forbidden, nil}, nil},
		{"fails otherwise", time.Minute, []error{broken, nil}, broken},
		{"fails otherwise then", time.Minute, []error{gone, broken, nil}, broken},
		{"must not be gone", 0, []error{gone, nil}, gone},
		{"stays away", time.Nanosecond, []error{gone, nil}, gone},
	} {
		e := &Engine{ctx: t.Context(), Options: Options{Outage: c.outage}}
		err := e.insist(func() error {
			next := c.answers[0]
			c.answers = c.answers[1:]
			return next
		})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := &Engine{ctx: ctx, Options: Options{Outage: time.Hour}}
	if err := e.insist(func() error { return gone }); !errors.Is(err, gone) {
		t.Errorf("interrupted: %v, want %v", err, gone)
	}
}
