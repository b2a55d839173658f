package registry

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	corev1 "k8s.io/api/core/v1"
)

// entry is the credentials of one registry in a secret.
type entry struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	Auth     string `json:"auth,omitempty"`
}

func entries(host string, a Account) map[string]entry {
	return map[string]entry{host: {
		Username: a.Name,
		Password: a.Password,
		Auth:     base64.StdEncoding.EncodeToString([]byte(a.Name + ":" + a.Password)),
	}}
}

// DockerConfigJSON is the content of a secret of type kubernetes.io/dockerconfigjson for one account. The host may be
// followed by a path, as in "quay.io/openshift", and then holds for the repositories below it.
func DockerConfigJSON(host string, a Account) []byte {
	b, err := json.Marshal(map[string]map[string]entry{"auths": entries(host, a)})
	if err != nil {
		return nil // strings only: can't happen
	}
	return b
}

// DockerCfg is the content of a secret of the older type kubernetes.io/dockercfg for one account.
func DockerCfg(host string, a Account) []byte {
	b, err := json.Marshal(entries(host, a))
	if err != nil {
		return nil // strings only: can't happen
	}
	return b
}

// Keychain reads the credentials in a secret of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg. The
// most specific entry for a repository is used (containers-auth.json's rule); one without an entry is accessed
// without credentials. Errors never contain the secret's content.
func Keychain(secretType corev1.SecretType, data map[string][]byte) (authn.Keychain, error) {
	auths := map[string]entry{}
	var key string
	var into any
	switch secretType {
	case corev1.SecretTypeDockerConfigJson:
		key, into = corev1.DockerConfigJsonKey, &struct {
			Auths *map[string]entry `json:"auths"`
		}{&auths}
	case corev1.SecretTypeDockercfg:
		key, into = corev1.DockerConfigKey, &auths
	default:
		return nil, fmt.Errorf("secret type %q holds no registry credentials", secretType)
	}
	content, ok := data[key]
	if !ok {
		return nil, fmt.Errorf("secret of type %s has no key %s", secretType, key)
	}
	if err := json.Unmarshal(content, into); err != nil {
		return nil, fmt.Errorf("secret key %s is not valid JSON", key) // the cause would quote the content
	}
	k := keychain{}
	for _, host := range slices.Sorted(maps.Keys(auths)) {
		e := auths[host]
		config := authn.AuthConfig{Username: e.Username, Password: e.Password}
		if e.Auth != "" {
			decoded, err := base64.StdEncoding.DecodeString(e.Auth)
			name, password, ok := strings.Cut(string(decoded), ":")
			if err != nil || !ok {
				return nil, fmt.Errorf("secret key %s: auth of %s is not base64 of name:password", key, host)
			}
			config = authn.AuthConfig{Username: name, Password: password}
		}
		k[canonicalKey(host)] = config
	}
	return k, nil
}

// canonicalKey strips what docker writes round a host.
func canonicalKey(host string) string {
	for _, scheme := range []string{"https://", "http://"} {
		host = strings.TrimPrefix(host, scheme)
	}
	for _, version := range []string{"/v1/", "/v2/", "/v1", "/v2", "/"} {
		host = strings.TrimSuffix(host, version)
	}
	if rest, ok := strings.CutPrefix(host, "docker.io"); ok && (rest == "" || rest[0] == '/') {
		host = "index.docker.io" + rest
	}
	return host
}

type keychain map[string]authn.AuthConfig

// Resolve looks from the whole repository up to the host.
func (k keychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	for name := target.String(); ; {
		if config, ok := k[name]; ok {
			return authn.FromConfig(config), nil
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			break
		}
		name = name[:i]
	}
	return authn.Anonymous, nil
}
