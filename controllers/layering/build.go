package layering

import (
	"cmp"
	"slices"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Progress is how far a build is: the type of its condition that is True, a final one before a transient one, or "" for
// a build that nobody has started.
func Progress(build *mcfgv1.MachineOSBuild) mcfgv1.BuildProgress {
	for _, p := range []mcfgv1.BuildProgress{mcfgv1.MachineOSBuildFailed, mcfgv1.MachineOSBuildInterrupted,
		mcfgv1.MachineOSBuildSucceeded, mcfgv1.MachineOSBuilding, mcfgv1.MachineOSBuildPrepared} {
		for _, c := range build.Status.Conditions {
			if c.Type == string(p) && c.Status == metav1.ConditionTrue {
				return p
			}
		}
	}
	return ""
}

// Terminal tells whether a build has ended, well or badly.
func Terminal(build *mcfgv1.MachineOSBuild) bool {
	switch Progress(build) {
	case mcfgv1.MachineOSBuildFailed, mcfgv1.MachineOSBuildInterrupted, mcfgv1.MachineOSBuildSucceeded:
		return true
	}
	return false
}

// ConfigOfPool returns the MachineOSConfig that makes a pool layered, nil where there is none. The API allows one only,
// named like the pool; on a server without that rule the one that is named so wins, else the first by name.
func ConfigOfPool(pool string, configs []mcfgv1.MachineOSConfig) *mcfgv1.MachineOSConfig {
	var found *mcfgv1.MachineOSConfig
	for i := range configs {
		c := &configs[i]
		if c.Spec.MachineConfigPool.Name != pool {
			continue
		}
		if c.Name == pool {
			return c
		}
		if found == nil || c.Name < found.Name {
			found = c
		}
	}
	return found
}

// CurrentBuildOf returns the build that a MachineOSConfig stands for with a rendered MachineConfig, nil where there is
// none yet. The annotation [CurrentBuild] decides, as long as the build that it names exists and was made for the
// rendered config; an annotation that is behind is passed over, for the builder to move. Without its help the order is:
// a build that is under way, the one in the MachineOSConfig's status, one whose image is the MachineOSConfig's, the
// newest, the last by name. Builds that are being deleted come last.
func CurrentBuildOf(config *mcfgv1.MachineOSConfig, builds []mcfgv1.MachineOSBuild, rendered string) *mcfgv1.MachineOSBuild {
	var candidates []*mcfgv1.MachineOSBuild
	for i := range builds {
		b := &builds[i]
		if b.Spec.MachineOSConfig.Name != config.Name || b.Spec.MachineConfig.Name != rendered {
			continue
		}
		if b.Name == config.Annotations[CurrentBuild] {
			return b
		}
		candidates = append(candidates, b)
	}
	if len(candidates) == 0 {
		return nil
	}
	rank := func(b *mcfgv1.MachineOSBuild) int {
		switch {
		case b.DeletionTimestamp != nil:
			return 4
		case !Terminal(b):
			return 0
		case config.Status.MachineOSBuild != nil && config.Status.MachineOSBuild.Name == b.Name:
			return 1
		case b.Status.DigestedImagePushSpec != "" && b.Status.DigestedImagePushSpec == config.Status.CurrentImagePullSpec:
			return 2
		}
		return 3
	}
	return slices.MinFunc(candidates, func(a, b *mcfgv1.MachineOSBuild) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)),
			b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(b.Name, a.Name))
	})
}
