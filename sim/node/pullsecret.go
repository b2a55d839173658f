package node

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/google/go-containerregistry/pkg/authn"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"

	"github.com/layersim/layersim/controllers/layering"
	"github.com/layersim/layersim/sim/registry"
)

// globalPullSecret is the cluster's own pull secret, which every machine has in /var/lib/kubelet/config.json.
var globalPullSecret = types.NamespacedName{Namespace: "openshift-config", Name: "pull-secret"}

// auths is the content of a docker config: credentials by registry, or registry and path.
type auths map[string]json.RawMessage

// parseAuths reads a docker config in the form of a Secret of type dockerconfigjson or of type dockercfg. It returns
// nil for one that can't be read.
func parseAuths(data []byte) auths {
	var config struct {
		Auths auths `json:"auths"`
	}
	if err := json.Unmarshal(data, &config); err == nil && config.Auths != nil {
		return config.Auths
	}
	var legacy auths
	if json.Unmarshal(data, &legacy) != nil {
		return nil
	}
	return legacy
}

// pullSecret returns a node's credentials: the internal registry's, which the daemon writes to the machine's disk, laid
// over the global pull secret. What is missing or can't be read counts as empty, like a file that isn't there.
func pullSecret(ctx context.Context, c client.Reader, h *Host) (authn.Keychain, error) {
	merged := auths{}
	var secret corev1.Secret
	if err := c.Get(ctx, globalPullSecret, &secret); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get secret %s: %w", globalPullSecret, err)
	}
	for _, key := range []string{corev1.DockerConfigKey, corev1.DockerConfigJsonKey} {
		maps.Copy(merged, parseAuths(secret.Data[key]))
	}
	var cc mcfgv1.ControllerConfig
	if err := c.Get(ctx, types.NamespacedName{Name: layering.ControllerConfigName}, &cc); err == nil {
		h.change(func(h *Host) { h.disk.pullSecret = cc.Spec.InternalRegistryPullSecret })
		maps.Copy(merged, parseAuths(cc.Spec.InternalRegistryPullSecret))
	} else if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("get controllerconfig %s: %w", layering.ControllerConfigName, err)
	}
	data, err := json.Marshal(map[string]auths{"auths": merged})
	if err != nil {
		return nil, fmt.Errorf("merge pull secrets of node %s: %w", h.spec.Name, err)
	}
	keys, err := registry.Keychain(corev1.SecretTypeDockerConfigJson, map[string][]byte{corev1.DockerConfigJsonKey: data})
	if err != nil {
		return nil, failed("pull secret of the node: %w", err)
	}
	return keys, nil
}
