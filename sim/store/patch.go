package store

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// patch applies a patch to an object or to one of its subresources. The caller holds writing.
func (s *Store) patch(w *write, data []byte) (*Object, error) {
	if w.req.PatchType == types.ApplyPatchType {
		return s.applyPatch(w, data)
	}
	k := w.kind
	if w.req.Name == "" {
		return nil, apierrors.NewBadRequest("name is required")
	}
	old := s.lookup(k, w.req.Namespace, w.req.Name)
	if old == nil {
		return nil, k.notFound(w.req.Name)
	}
	in, err := s.patched(w, old, data)
	if err != nil {
		return nil, err
	}
	meta := metadataOf(in)
	if meta["resourceVersion"] == nil {
		meta["resourceVersion"] = strconv.FormatInt(old.revision, 10)
	}
	if kind, _ := in["kind"].(string); kind != k.gvk.Kind {
		if k.crd != nil {
			return nil, apierrors.NewInvalid(schema.GroupKind{Group: k.gvk.Group, Kind: kind}, w.req.Name, field.ErrorList{
				field.Invalid(field.NewPath("kind"), kind, "must be "+k.gvk.Kind)})
		}
		return nil, invalidPatch(in, fmt.Sprintf("no kind %q is registered for version %q in scheme %q", kind, k.gvk.GroupVersion(), patchScheme))
	}
	if _, err := decodeMeta(in); err != nil {
		return nil, invalidPatch(in, s.badMetadata(k, in, err).Error())
	}
	in["apiVersion"], in["kind"] = k.gvk.GroupVersion().String(), k.gvk.Kind
	return s.update(w, in)
}

// patchScheme is where kube-apiserver says that its scheme was made.
const patchScheme = "pkg/runtime/scheme.go:111"

// invalidPatch is the error for a patch whose result can't be decoded.
func invalidPatch(result map[string]any, message string) error {
	text, err := json.Marshal(result)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), string(text), message)})
}

// patched returns what a patch makes of a stored object; nothing in it is shared.
func (s *Store) patched(w *write, old *Object, data []byte) (map[string]any, error) {
	k := w.kind
	switch w.req.PatchType {
	case types.JSONPatchType:
		p, err := jsonpatch.DecodePatch(data)
		if err != nil {
			return nil, apierrors.NewBadRequest("error decoding patch: " + strings.ReplaceAll(err.Error(), "jsonpatch.Patch", "[]handlers.jsonPatchOp"))
		}
		doc, err := json.Marshal(old.u.Object)
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		doc, err = p.Apply(doc)
		if err != nil {
			return nil, apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
		}
		out := map[string]any{}
		if err := utiljson.Unmarshal(doc, &out); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		return out, nil
	case types.MergePatchType:
		p := map[string]any{}
		if err := utiljson.Unmarshal(data, &p); err != nil {
			return nil, apierrors.NewBadRequest("invalid JSON patch")
		}
		return mergePatch(old.u.Object, p).(map[string]any), nil
	case types.StrategicMergePatchType:
		if k.crd != nil {
			return nil, unsupportedPatch()
		}
		t, err := newTyped(s.scheme, k.gvk)
		if err != nil {
			return nil, unsupportedPatch()
		}
		p := map[string]any{}
		if err := utiljson.Unmarshal(data, &p); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		}
		out, err := strategicpatch.StrategicMergeMapPatch(runtime.DeepCopyJSON(old.u.Object), p, t)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		return out, nil
	}
	return nil, unsupportedPatch()
}

func unsupportedPatch() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format - accepted media types include: " +
			"application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
	}}
}

// mergePatch applies an RFC 7386 patch to a copy of doc.
func mergePatch(doc, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	d, _ := doc.(map[string]any)
	out := make(map[string]any, len(d)+len(p))
	for key, v := range d {
		if _, patched := p[key]; !patched {
			out[key] = runtime.DeepCopyJSONValue(v)
		}
	}
	for key, v := range p {
		if v != nil {
			out[key] = mergePatch(d[key], v)
		}
	}
	return out
}

// decodeApplyConfiguration returns an apply configuration as the patch that it stands for.
func decodeApplyConfiguration(ac runtime.ApplyConfiguration) ([]byte, *unstructured.Unstructured, error) {
	data, err := json.Marshal(ac)
	if err != nil {
		return nil, nil, fmt.Errorf("encode apply configuration: %w", err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{}}
	if err := utiljson.Unmarshal(data, &u.Object); err != nil {
		return nil, nil, fmt.Errorf("decode apply configuration: %w", err)
	}
	if u.GetAPIVersion() == "" || u.GetKind() == "" || u.GetName() == "" {
		return nil, nil, errNotApplicable
	}
	return data, u, nil
}

// encodeApplyConfiguration returns the result of an apply to its caller.
func encodeApplyConfiguration(result *unstructured.Unstructured, ac runtime.ApplyConfiguration) error {
	if u, ok := ac.(interface{ SetUnstructuredContent(map[string]any) }); ok {
		u.SetUnstructuredContent(result.Object)
		return nil
	}
	data, err := json.Marshal(result.Object)
	if err != nil {
		return fmt.Errorf("encode apply result: %w", err)
	}
	if err := json.Unmarshal(data, ac); err != nil {
		return fmt.Errorf("decode apply result: %w", err)
	}
	return nil
}
