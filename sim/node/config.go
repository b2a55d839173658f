package node

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	mcfgv1 "github.com/openshift/api/machineconfiguration/v1"
)

// config is a rendered MachineConfig as a machine sees it. It is shared and never changed.
type config struct {
	id      types.UID // what the cache knows it by
	name    string
	osImage string
	files   map[string]string // content by path
	system  [32]byte          // of what needs a reboot under any policy: kernel arguments and type, extensions, fips
	live    [32]byte          // of units and users
}

// sameFiles says that going from one config to the other changes no file, unit or user.
func (c *config) sameFiles(o *config) bool { return c.live == o.live && maps.Equal(c.files, o.files) }

// configCache keeps parsed configs. Rendered MachineConfigs don't change; the UID tells a new one of the same name.
type configCache struct {
	mu      sync.Mutex
	configs map[types.UID]*config
}

func newConfigCache() *configCache { return &configCache{configs: map[types.UID]*config{}} }

// ignition is the part of an Ignition config that becomes files on a machine.
type ignition struct {
	Storage struct {
		Files []struct {
			Path     string `json:"path"`
			Contents struct {
				Source      *string `json:"source"`
				Compression *string `json:"compression"`
			} `json:"contents"`
		} `json:"files"`
	} `json:"storage"`
	Systemd json.RawMessage `json:"systemd"`
	Passwd  json.RawMessage `json:"passwd"`
}

// parse reads a rendered MachineConfig.
func (c *configCache) parse(mc *mcfgv1.MachineConfig) (*config, error) {
	id := types.UID(mc.Name + "/" + string(mc.UID))
	if mc.UID == "" {
		id += types.UID(mc.ResourceVersion)
	}
	c.mu.Lock()
	known := c.configs[id]
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	var ign ignition
	if len(mc.Spec.Config.Raw) > 0 {
		if err := json.Unmarshal(mc.Spec.Config.Raw, &ign); err != nil {
			return nil, fmt.Errorf("parsing Ignition config of %s failed with error: %w", mc.Name, err)
		}
	}
	parsed := &config{id: id, name: mc.Name, osImage: mc.Spec.OSImageURL, files: map[string]string{}}
	for _, f := range ign.Storage.Files {
		content := ""
		if f.Contents.Source != nil {
			var err error
			if content, err = dataURL(*f.Contents.Source); err != nil {
				return nil, fmt.Errorf("decode file %q of %s: %w", f.Path, mc.Name, err)
			}
		}
		if f.Contents.Compression != nil && *f.Contents.Compression == "gzip" {
			r, err := gzip.NewReader(strings.NewReader(content))
			if err != nil {
				return nil, fmt.Errorf("decompress file %q of %s: %w", f.Path, mc.Name, err)
			}
			plain, err := io.ReadAll(r)
			if err != nil {
				return nil, fmt.Errorf("decompress file %q of %s: %w", f.Path, mc.Name, err)
			}
			content = string(plain)
		}
		parsed.files[f.Path] = content
	}
	parsed.live = sha256.Sum256(bytes.Join([][]byte{ign.Systemd, ign.Passwd}, []byte{0}))
	parsed.system = sha256.Sum256(fmt.Appendf(nil, "%q %q %q %t", mc.Spec.KernelArguments, mc.Spec.Extensions,
		mc.Spec.KernelType, mc.Spec.FIPS))
	c.mu.Lock()
	c.configs[id] = parsed
	c.mu.Unlock()
	return parsed, nil
}

// dataURL decodes a data URL (RFC 2397), the only kind that a rendered MachineConfig holds.
func dataURL(source string) (string, error) {
	if source == "" {
		return "", nil
	}
	rest, ok := strings.CutPrefix(source, "data:")
	head, body, comma := strings.Cut(rest, ",")
	if !ok || !comma {
		return "", fmt.Errorf("%.40q is no data URL", source)
	}
	text, err := url.PathUnescape(body)
	if err != nil {
		return "", fmt.Errorf("decode data URL: %w", err)
	}
	if !strings.HasSuffix(head, ";base64") {
		return text, nil
	}
	plain, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", fmt.Errorf("decode data URL: %w", err)
	}
	return string(plain), nil
}
