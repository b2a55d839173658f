package store_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/layersim/layersim/sim/store/storetest"
)

func TestRandomOperations(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := newServer(t)
		storetest.Check(t.Context(), r, storetest.Options{Client: s, Namespace: "ns", Prefix: "p-"})
		if left := count(s); left != 0 {
			r.Errorf("%d ConfigMaps left", left)
		}
	})
}
