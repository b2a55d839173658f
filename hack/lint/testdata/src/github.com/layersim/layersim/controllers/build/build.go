package build

import (
	"k8s.io/apimachinery/pkg/api/meta"
	v1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	_ "github.com/layersim/layersim/cmd/tool"  // want `imports: nothing imports cmd/`
	_ "github.com/layersim/layersim/sim/store" // want `imports: controllers/ is production code`
)

func conditions(now v1.Time, list []v1.Condition) {
	given := v1.Condition{Type: "Given"}
	meta.SetStatusCondition(&list, given)
	meta.SetStatusCondition(&list, v1.Condition{Type: "Building", LastTransitionTime: now})
	meta.SetStatusCondition(&list, v1.Condition{Type: "Building"}) // want `walltime: SetStatusCondition takes the wall time`
	_ = v1.Now()                                                   // want `walltime: k8s\.io/apimachinery/pkg/apis/meta/v1\.Now`
}
