package store

import (
	"encoding/base64"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func emptySelectors(o *client.ListOptions) bool {
	return (o.LabelSelector == nil || o.LabelSelector.Empty()) && (o.FieldSelector == nil || o.FieldSelector.Empty())
}

// matcher returns a list's or watch's selection, namespace aside.
func (k *kind) matcher(o *client.ListOptions) (func(*Object) bool, error) {
	ls, fs := o.LabelSelector, o.FieldSelector
	if ls == nil {
		ls = labels.Everything()
	}
	if fs == nil {
		fs = fields.Everything()
	}
	reqs := fs.Requirements()
	for _, r := range reqs {
		if !k.selectable(r.Field) {
			return nil, apierrors.NewBadRequest(k.notSelectable(r.Field))
		}
	}
	everything := ls.Empty()
	return func(obj *Object) bool {
		for _, r := range reqs {
			if (k.field(obj, r.Field) == r.Value) == (r.Operator == "!=") {
				return false
			}
		}
		return everything || ls.Matches(labels.Set(obj.labels))
	}, nil
}

// notSelectable says that a field can't be selected by, in the words that the kind has for it.
func (k *kind) notSelectable(name string) string {
	switch {
	case k.crd != nil || fieldPaths[k.gvk.Kind] != nil && k.gvk.Group == "":
		return "field label not supported: " + name
	case k.gvk.Group == "batch":
		return fmt.Sprintf("field label %q not supported for %s", name, k.gvk.Kind)
	}
	return fmt.Sprintf("%q is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", name)
}

// fieldPaths are the fields by which built-in kinds can be selected, besides name and namespace.
var fieldPaths = map[string]map[string][]string{
	"Pod": {
		"spec.nodeName": {"spec", "nodeName"}, "spec.restartPolicy": {"spec", "restartPolicy"},
		"spec.schedulerName": {"spec", "schedulerName"}, "spec.serviceAccountName": {"spec", "serviceAccountName"},
		"status.phase": {"status", "phase"}, "status.podIP": {"status", "podIP"},
		"status.nominatedNodeName": {"status", "nominatedNodeName"},
	},
	"Secret":    {"type": {"type"}},
	"Namespace": {"status.phase": {"status", "phase"}},
	"Node":      {"spec.unschedulable": {"spec", "unschedulable"}},
	"Job":       {"status.successful": {"status", "succeeded"}},
	"Event": {
		"involvedObject.kind": {"involvedObject", "kind"}, "involvedObject.namespace": {"involvedObject", "namespace"},
		"involvedObject.name": {"involvedObject", "name"}, "involvedObject.uid": {"involvedObject", "uid"},
		"involvedObject.apiVersion":      {"involvedObject", "apiVersion"},
		"involvedObject.resourceVersion": {"involvedObject", "resourceVersion"},
		"involvedObject.fieldPath":       {"involvedObject", "fieldPath"},
		"reason":                         {"reason"}, "reportingComponent": {"reportingComponent"}, "source": {"source", "component"}, "type": {"type"},
	},
}

func (k *kind) fieldPath(name string) []string {
	if k.crd != nil {
		return k.crd.selectable[name]
	}
	return fieldPaths[k.gvk.Kind][name]
}

func (k *kind) selectable(name string) bool {
	return name == "metadata.name" || name == "metadata.namespace" && k.namespaced || k.fieldPath(name) != nil
}

func (k *kind) field(o *Object, name string) string {
	switch name {
	case "metadata.name":
		return o.name
	case "metadata.namespace":
		return o.namespace
	}
	v := nested(o.u.Object, k.fieldPath(name)...)
	if v == nil {
		switch name {
		case "spec.unschedulable":
			return "false"
		case "status.successful":
			return "0"
		}
		return ""
	}
	return fmt.Sprint(v)
}

type continueToken struct {
	Version  string `json:"v"`
	Revision int64  `json:"rv"`
	Start    string `json:"start"`
}

func encodeContinue(revision int64, start string) string {
	b, err := json.Marshal(continueToken{"meta.k8s.io/v1", revision, start})
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeContinue(token string) (int64, string, error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	var t continueToken
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		return 0, "", apierrors.NewBadRequest(fmt.Sprintf("invalid continue token: continue key is not valid: %v", err))
	}
	return t.Revision, t.Start, nil
}
