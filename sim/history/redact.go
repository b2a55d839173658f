package history

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Redactor replaces secret values by fingerprints before they reach a history. Equal values have equal fingerprints within a
// run, so that a rotation can be seen. A fingerprint is six bytes of an HMAC under a key made of the run's seed: enough to
// tell values apart, too little to find one that isn't easily guessed.
type Redactor struct{ key []byte }

// NewRedactor returns the redactor of a run.
func NewRedactor(seed uint64) *Redactor {
	return &Redactor{key: binary.BigEndian.AppendUint64([]byte("layersim history"), seed)}
}

// Object returns the object without secret values: the data of Secrets, and the pull secret in a ControllerConfig. An
// object without any is returned as it is.
func (r *Redactor) Object(o *unstructured.Unstructured) *unstructured.Unstructured {
	if o == nil {
		return nil
	}
	switch o.GetKind() {
	case "Secret":
		clean := &unstructured.Unstructured{Object: shallow(o.Object)}
		for _, field := range []string{"data", "stringData"} {
			if values, ok := o.Object[field].(map[string]any); ok {
				hidden := make(map[string]any, len(values))
				for k, v := range values {
					hidden[k] = r.hide(v)
				}
				clean.Object[field] = hidden
			}
		}
		// Annotations such as kubectl's last-applied-configuration and managedFields may repeat what data holds.
		metadata, _ := clean.Object["metadata"].(map[string]any)
		metadata = shallow(metadata)
		if annotations, ok := metadata["annotations"].(map[string]any); ok {
			annotations = shallow(annotations)
			delete(annotations, "kubectl.kubernetes.io/last-applied-configuration")
			metadata["annotations"] = annotations
		}
		clean.Object["metadata"] = metadata
		return clean
	case "ControllerConfig":
		spec, ok := o.Object["spec"].(map[string]any)
		if !ok || spec["internalRegistryPullSecret"] == nil {
			return o
		}
		clean := &unstructured.Unstructured{Object: shallow(o.Object)}
		spec = shallow(spec)
		spec["internalRegistryPullSecret"] = r.hide(spec["internalRegistryPullSecret"])
		clean.Object["spec"] = spec
		return clean
	}
	return o
}

func (r *Redactor) hide(v any) any {
	text, ok := v.(string)
	if !ok || text == "" {
		return v
	}
	mac := hmac.New(sha256.New, r.key)
	mac.Write([]byte(text)) // a hash never fails to write
	return base64.StdEncoding.EncodeToString([]byte("redacted " + hex.EncodeToString(mac.Sum(nil)[:6])))
}

func shallow(m map[string]any) map[string]any {
	c := make(map[string]any, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}
