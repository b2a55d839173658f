//go:build e2e

package e2e

import (
	"io"

	"github.com/layersim/layersim/sim/report"
	artifact "github.com/layersim/layersim/sim/report/artifacts"
)

// artifacts are what a scenario leaves in a folder of its own.
type artifacts struct {
	*artifact.Folder
	folder string
}

// newArtifacts removes what an earlier run left in the folder.
func newArtifacts(folder, logs string) (*artifacts, error) {
	f, err := artifact.New(folder, logs)
	if err != nil {
		return nil, err
	}
	return &artifacts{f, f.Path()}, nil
}

func (a *artifacts) write(r *report.Result) error { return a.Write(*clusterFlag, seed, r) }

// text writes a report of one scenario.
func text(w io.Writer, r *report.Result, o report.TextOptions) error {
	return report.Text(w, &report.Suite{Cluster: *clusterFlag, Seed: seed, Scenarios: []*report.Result{r}}, o)
}
