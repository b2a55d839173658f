package render

import (
	"cmp"
	"crypto/md5" //nolint:gosec // a name, not a secret; upstream's
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/layersim/layersim/controllers/layering"
)

// MaxSize is the size of a rendered MachineConfig in bytes of JSON above which the API server would refuse it; upstream's.
const MaxSize = 1572864

// Kernel types that a MachineConfig may ask for.
const (
	kernelDefault  = "default"
	kernelRealtime = "realtime"
	kernel64kPages = "64k-pages"
)

// salt makes the names of rendered MachineConfigs differ from plain hashes; it is upstream's, so names are comparable.
var salt = []byte{
	16, 124, 206, 228, 139, 56, 175, 175, 79, 229, 134, 118, 157, 154, 211, 110,
	25, 93, 47, 253, 172, 106, 37, 7, 174, 13, 160, 185, 110, 17, 87, 52,
	219, 131, 12, 206, 218, 141, 116, 135, 188, 181, 192, 151, 233, 62, 126, 165,
	64, 83, 179, 119, 15, 168, 208, 197, 146, 107, 58, 227, 133, 188, 238, 26,
	33, 26, 235, 202, 32, 173, 31, 234, 41, 144, 148, 79, 6, 206, 23, 22,
}

// Merged is the outcome of a merge.
type Merged struct {
	Spec mcfgv1.MachineConfigSpec
	// Overridden tells that a MachineConfig of the user's set the OS image.
	Overridden bool
}

// Merge makes one MachineConfig of many. MachineConfigs of role worker come first, by name, then all others, by name, so
// that a custom pool's have the last word over those it inherits. Ignition configs are merged in that order, kernel
// arguments and extensions joined, fips is on if any wants it, and the last kernel type other than the default wins.
// The OS image is the ControllerConfig's, unless a MachineConfig that no controller generated sets osImageURL; then the
// last of those wins. The extensions image likewise. An extension or a kernel type that doesn't exist is an error. The sources
// aren't changed.
func Merge(sources []mcfgv1.MachineConfig, controller *mcfgv1.ControllerConfig) (*Merged, error) {
	if len(sources) == 0 {
		return nil, errors.New("no MachineConfigs found matching selector")
	}
	ordered := make([]*mcfgv1.MachineConfig, 0, len(sources))
	for i := range sources {
		ordered = append(ordered, &sources[i])
	}
	slices.SortFunc(ordered, func(a, b *mcfgv1.MachineConfig) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name))
	})
	merged := &Merged{Spec: mcfgv1.MachineConfigSpec{
		OSImageURL:                     cmp.Or(controller.Spec.BaseOSContainerImage, controller.Spec.OSImageURL),
		BaseOSExtensionsContainerImage: controller.Spec.BaseOSExtensionsContainerImage,
		KernelArguments:                []string{},
		Extensions:                     []string{},
		KernelType:                     kernelDefault,
	}}
	spec := &merged.Spec
	var ignition map[string]any
	for _, mc := range ordered {
		if len(mc.Spec.Config.Raw) > 0 {
			var err error
			if ignition, err = mergeIgnition(ignition, mc.Spec.Config.Raw); err != nil {
				return nil, fmt.Errorf("machineconfig %s: %w", mc.Name, err)
			}
		}
		spec.KernelArguments = append(spec.KernelArguments, mc.Spec.KernelArguments...)
		spec.Extensions = append(spec.Extensions, mc.Spec.Extensions...)
		spec.FIPS = spec.FIPS || mc.Spec.FIPS
		switch mc.Spec.KernelType {
		case kernelRealtime, kernel64kPages:
			spec.KernelType = mc.Spec.KernelType
		case "", kernelDefault:
		default:
			return nil, fmt.Errorf("machineconfig %s: kernelType %q is invalid, want %s, %s or %s",
				mc.Name, mc.Spec.KernelType, kernelDefault, kernelRealtime, kernel64kPages)
		}
		if mc.Annotations[layering.GeneratedByController] != "" {
			continue
		}
		if mc.Spec.OSImageURL != "" && mc.Spec.OSImageURL != spec.OSImageURL {
			spec.OSImageURL, merged.Overridden = mc.Spec.OSImageURL, true
		}
		if mc.Spec.BaseOSExtensionsContainerImage != "" {
			spec.BaseOSExtensionsContainerImage = mc.Spec.BaseOSExtensionsContainerImage
		}
	}
	unknown := slices.DeleteFunc(slices.Clone(spec.Extensions), func(extension string) bool {
		_, known := layering.ExtensionPackages(extension)
		return known
	})
	if len(unknown) > 0 {
		return nil, fmt.Errorf("invalid extensions found: %v", unknown)
	}
	if spec.KernelType != kernelDefault && slices.Contains(spec.Extensions, "kernel-devel") {
		return nil, fmt.Errorf("installing kernel-devel extension is not supported with kernelType: %s", spec.KernelType)
	}
	if spec.OSImageURL == "" {
		return nil, fmt.Errorf("controllerconfig %s names no base OS image", controller.Name)
	}
	if ignition == nil {
		ignition = map[string]any{"ignition": map[string]any{"version": "3.5.0"}}
	}
	raw, err := json.Marshal(ignition)
	if err != nil {
		return nil, fmt.Errorf("encode ignition config: %w", err)
	}
	spec.Config = runtime.RawExtension{Raw: raw}
	return merged, nil
}

func rank(mc *mcfgv1.MachineConfig) int {
	if mc.Labels[layering.MachineConfigRole] == layering.WorkerPool {
		return 0
	}
	return 1
}

// Name is the name of a pool's rendered MachineConfig: "rendered-<pool>-" and an md5 over salt and YAML of the spec. Two
// pools with the same sources have the same sum.
func Name(pool string, spec *mcfgv1.MachineConfigSpec) (string, error) {
	data, err := yaml.Marshal(spec)
	if err != nil {
		return "", fmt.Errorf("encode machineconfig of pool %s: %w", pool, err)
	}
	return fmt.Sprintf("rendered-%s-%x", pool, md5.Sum(append(slices.Clone(salt), data...))), nil //nolint:gosec // see salt
}
