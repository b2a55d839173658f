package scenario_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/layersim/layersim/fixtures"
	"github.com/layersim/layersim/sim/scenario"
	"github.com/layersim/layersim/sim/store"
)

// TestColumns: the columns that a row or column may name are those that are printed.
func TestColumns(t *testing.T) {
	crds, err := fixtures.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range scenario.Kinds() {
		var columns []apiextensionsv1.CustomResourceColumnDefinition
		for _, crd := range crds {
			if crd.Spec.Names.Kind == k.Kind {
				columns = crd.Spec.Versions[0].AdditionalPrinterColumns
			}
		}
		printed, _ := store.TextOf(store.TableOf(columns, k.GroupVersionKind, nil, time.Time{}))
		if diff := cmp.Diff(printed, k.Columns); diff != "" {
			t.Errorf("%s (-printed +known):\n%s", k.Kind, diff)
		}
	}
}
