package cluster

import (
	"slices"

	"github.com/layersim/layersim/sim/builder"
	"github.com/layersim/layersim/sim/scenario"
)

// repositories lets faults switch the package repositories that builds install from.
type repositories struct {
	*builder.Repositories
	// whole holds each repository as it was before packages were hidden.
	whole []builder.Repository
}

func newRepositories(r *builder.Repositories) *repositories {
	return &repositories{Repositories: r, whole: r.List()}
}

// Match returns the ids of the repositories that match the glob.
func (r *repositories) Match(glob string) []string {
	var ids []string
	for _, repository := range r.whole {
		if scenario.Match(glob, repository.ID) {
			ids = append(ids, repository.ID)
		}
	}
	return ids
}

// SetUnreachable makes repositories unreachable, or reachable again.
func (r *repositories) SetUnreachable(glob string, unreachable bool) {
	for _, id := range r.Match(glob) {
		r.SetReachable(id, !unreachable)
	}
}

// SetMissing hides a package, or shows it again.
func (r *repositories) SetMissing(glob, pkg string, missing bool) {
	for n, repository := range r.List() {
		if !scenario.Match(glob, repository.ID) {
			continue
		}
		repository.Packages = slices.DeleteFunc(slices.Clone(repository.Packages), func(p builder.Package) bool { return p.Name == pkg })
		if !missing {
			for _, p := range r.whole[n].Packages {
				if p.Name == pkg {
					repository.Packages = append(repository.Packages, p)
				}
			}
		}
		r.Set(repository)
	}
}
