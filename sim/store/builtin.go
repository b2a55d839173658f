package store

import (
	"encoding/json"
	"fmt"
	"math"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// admitBuiltin decodes, defaults and validates an object of a built-in kind. Unknown fields are dropped.
func (s *Store) admitBuiltin(w *write, in map[string]any, old *Object) (map[string]any, client.Object, field.ErrorList, error) {
	k := w.kind
	t, err := s.decode(w, in)
	if err != nil || t == nil {
		return in, nil, nil, err
	}
	var oldTyped client.Object
	if old != nil {
		oldTyped = old.Typed()
	}
	prepared := s.prepareBuiltin(w, t, oldTyped)
	errs := validateBuiltin(w, t, oldTyped)
	if w.canonical && !prepared {
		return in, t, errs, nil
	}
	next, err := runtime.DefaultUnstructuredConverter.ToUnstructured(t)
	if err != nil {
		return nil, nil, nil, apierrors.NewInternalError(err)
	}
	next["apiVersion"], next["kind"] = k.gvk.GroupVersion().String(), k.gvk.Kind
	return next, t, errs, nil
}

// decode returns the typed form of what a client sent, nil for a kind without a Go type, which is stored as it is.
func (s *Store) decode(w *write, in map[string]any) (client.Object, error) {
	k := w.kind
	t, err := newTyped(s.scheme, k.gvk)
	if err != nil {
		return nil, nil
	}
	err = runtime.DefaultUnstructuredConverter.FromUnstructured(in, t)
	if err != nil || !w.canonical && large(in) {
		if jsonErr := decodeJSON(in, t); jsonErr != nil {
			err = jsonErr
		}
	}
	if err != nil {
		return nil, k.unreadable(err)
	}
	return t, nil
}

// unreadable is the error for an object that is not of its kind's form.
func (k *kind) unreadable(err error) error {
	return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", k.gvk.Kind, k.gvk.Version, k.gvk.Kind, err))
}

// decodeJSON decodes as kube-apiserver does, which is slower than the converter, but has the errors' words and refuses
// numbers that don't fit.
func decodeJSON(in map[string]any, into any) error {
	text, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return utiljson.Unmarshal(text, into)
}

// large says whether a value has a number that doesn't fit into 32 bits.
func large(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			if large(e) {
				return true
			}
		}
	case []any:
		for _, e := range v {
			if large(e) {
				return true
			}
		}
	case int64:
		return v > math.MaxInt32 || v < math.MinInt32
	}
	return false
}

// badMetadata is the error for metadata that can't be decoded.
func (s *Store) badMetadata(k *kind, in map[string]any, err error) error {
	if k.crd == nil {
		t, newErr := newTyped(s.scheme, k.gvk)
		if newErr != nil {
			return err
		}
		if jsonErr := decodeJSON(in, t); jsonErr != nil {
			err = jsonErr
		}
	} else if m, ok := in["metadata"].(map[string]any); ok {
		if jsonErr := decodeJSON(m, &metav1.ObjectMeta{}); jsonErr != nil {
			err = jsonErr
		}
	}
	return err
}
