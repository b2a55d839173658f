package build

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	corev1 "k8s.io/api/core/v1"
)

// credential is one entry of a dockerconfigjson Secret. It is only ever read, so that no value gets into an error.
type credential struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	Auth          string `json:"auth,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// canonical returns a registry Secret's content in the form of kubernetes.io/dockerconfigjson, converting the older
// kubernetes.io/dockercfg. The errors name what is wrong and never a value.
func canonical(secret *corev1.Secret) ([]byte, error) {
	legacy, hasLegacy := secret.Data[corev1.DockerConfigKey]
	modern, hasModern := secret.Data[corev1.DockerConfigJsonKey]
	switch secret.Type {
	case corev1.SecretTypeDockercfg:
		if hasModern {
			return nil, fmt.Errorf("secret %s of type %s also has key %s", secret.Name, secret.Type, corev1.DockerConfigJsonKey)
		}
		if !hasLegacy {
			return nil, fmt.Errorf("secret %s has no key %s", secret.Name, corev1.DockerConfigKey)
		}
		auths := map[string]json.RawMessage{}
		if json.Unmarshal(legacy, &auths) != nil || len(auths) == 0 {
			return nil, fmt.Errorf("secret %s: key %s holds no registry credentials", secret.Name, corev1.DockerConfigKey)
		}
		return json.Marshal(map[string]any{"auths": auths})
	case corev1.SecretTypeDockerConfigJson:
		if hasLegacy {
			return nil, fmt.Errorf("secret %s of type %s also has key %s", secret.Name, secret.Type, corev1.DockerConfigKey)
		}
		if !hasModern {
			return nil, fmt.Errorf("secret %s has no key %s", secret.Name, corev1.DockerConfigJsonKey)
		}
		var file struct {
			Auths map[string]json.RawMessage `json:"auths"`
		}
		if json.Unmarshal(modern, &file) != nil || len(file.Auths) == 0 {
			return nil, fmt.Errorf("secret %s: key %s holds no registry credentials", secret.Name, corev1.DockerConfigJsonKey)
		}
		return modern, nil
	default:
		return nil, fmt.Errorf("secret %s is of type %q, want %s or %s", secret.Name, secret.Type,
			corev1.SecretTypeDockerConfigJson, corev1.SecretTypeDockercfg)
	}
}

// authenticator returns the credential of a canonical Secret for a repository: the one of the longest matching key,
// and none where no key matches.
func authenticator(config []byte, registry, repository string) (authn.Authenticator, error) {
	var file struct {
		Auths map[string]credential `json:"auths"`
	}
	if json.Unmarshal(config, &file) != nil {
		return nil, errors.New("malformed registry credentials")
	}
	var best string
	var found *credential
	for _, key := range slices.Sorted(maps.Keys(file.Auths)) {
		entry := file.Auths[key]
		host := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://"), "/")
		full := registry + "/" + repository
		if host != registry && host != full && !strings.HasPrefix(full, host+"/") {
			continue
		}
		if found == nil || len(key) > len(best) {
			best, found = key, &entry
		}
	}
	if found == nil {
		return authn.Anonymous, nil
	}
	if found.Auth != "" && found.Username == "" {
		decoded, err := base64.StdEncoding.DecodeString(found.Auth)
		if err != nil {
			return nil, fmt.Errorf("malformed registry credentials for %s", registry)
		}
		found.Username, found.Password, _ = strings.Cut(string(decoded), ":")
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: found.Username, Password: strings.TrimRight(found.Password, "\x00\n"),
		IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken,
	}), nil
}
