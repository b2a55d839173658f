package build

import (
	"crypto/md5" //nolint:gosec // a name, not a secret: upstream's names are MD5 and ours must be equal
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
	"sigs.k8s.io/yaml"

	"github.com/layersim/layersim/controllers/layering"
)

// salt is what upstream puts before the hashed inputs, in hexadecimal.
const salt = "107ccee48b38afaf4fe586769d9ad36e195d2ffdac6a2507ae0da0b96e115734db830cceda8d7487bcb5c097e93e7ea5" +
	"4053b3770fa8d0c5926b3ae385bcee1a211aebca20ad1fea2990944f06ce1716"

// osImages is the third input of the hash. Its keys are upstream's Go field names.
type osImages struct {
	BaseOSContainerImage           string
	BaseOSExtensionsContainerImage string
	OSImageURL                     string // always empty since the images come from the rendered MachineConfig
	ReleaseVersion                 string
}

// Name returns the name of the MachineOSBuild that a MachineOSConfig leads to under a pool configuration and its
// rendered MachineConfig: the MachineOSConfig's name and an MD5 over the pool's configuration, the whole spec, and the
// operating system images. It is upstream's of the newest release, byte for byte, so that a build of one is found by
// the other. What is not in it leads to no build: labels, annotations, the pool's paused flag, contents of Secrets.
func Name(config *mcfgv1.MachineOSConfig, configuration mcfgv1.MachineConfigPoolStatusConfiguration,
	rendered *mcfgv1.MachineConfig) (string, error) {
	prefix, err := hex.DecodeString(salt)
	if err != nil {
		return "", fmt.Errorf("decode salt: %w", err)
	}
	hash := md5.New() //nolint:gosec // see above
	hash.Write(prefix)
	for _, input := range []any{configuration, config.Spec, osImages{
		BaseOSContainerImage:           rendered.Spec.OSImageURL,
		BaseOSExtensionsContainerImage: rendered.Spec.BaseOSExtensionsContainerImage,
		ReleaseVersion:                 rendered.Annotations[layering.ReleaseImageVersion],
	}} {
		text, err := yaml.Marshal(input)
		if err != nil {
			return "", fmt.Errorf("hash inputs of machineosconfig %s: %w", config.Name, err)
		}
		hash.Write(text)
	}
	return config.Name + "-" + hex.EncodeToString(hash.Sum(nil)), nil
}

// validateRendered says why a rendered MachineConfig can't be built on, as upstream does before it computes a name.
func validateRendered(rendered *mcfgv1.MachineConfig) error {
	if !strings.HasPrefix(rendered.Name, "rendered-") {
		return fmt.Errorf("machineconfig %q is not a rendered one: its name has no prefix \"rendered-\"", rendered.Name)
	}
	for _, key := range []string{layering.ReleaseImageVersion, layering.GeneratedByController} {
		if rendered.Annotations[key] == "" {
			return fmt.Errorf("machineconfig %q has no annotation %q", rendered.Name, key)
		}
	}
	if rendered.Spec.OSImageURL == "" {
		return fmt.Errorf("machineconfig %q has no osImageURL to build on", rendered.Name)
	}
	return nil
}

// repository returns the push spec without its tag.
func repository(pushSpec mcfgv1.ImageTagFormat) (string, error) {
	tag, err := name.NewTag(string(pushSpec), name.StrictValidation)
	if err != nil {
		return "", fmt.Errorf("parse push spec: %w", err)
	}
	return strings.TrimSuffix(string(pushSpec), ":"+tag.TagStr()), nil
}
