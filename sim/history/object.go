package history

import "k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

// Field returns what an object has at a path, without a copy; nil where the object or a part of the path is missing.
func Field(o *unstructured.Unstructured, path ...string) any {
	if o == nil {
		return nil
	}
	var at any = o.Object
	for _, name := range path {
		m, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = m[name]
	}
	return at
}

// Text returns the string at a path; empty where there is none.
func Text(o *unstructured.Unstructured, path ...string) string {
	s, _ := Field(o, path...).(string)
	return s
}

// Number returns the number at a path, in whichever form it was decoded; 0 where there is none.
func Number(o *unstructured.Unstructured, path ...string) int64 {
	switch n := Field(o, path...).(type) {
	case int64:
		return n
	case float64:
		return int64(n)
	case int:
		return int64(n)
	}
	return 0
}

// Items returns the objects of the list at a path; whatever else is in the list is left out.
func Items(o *unstructured.Unstructured, path ...string) []map[string]any {
	list, _ := Field(o, path...).([]any)
	items := make([]map[string]any, 0, len(list))
	for _, v := range list {
		if m, ok := v.(map[string]any); ok {
			items = append(items, m)
		}
	}
	return items
}

// Condition tells whether a condition of an object's status is True.
func Condition(o *unstructured.Unstructured, kind string) bool {
	for _, c := range Items(o, "status", "conditions") {
		if c["type"] == kind {
			return c["status"] == "True"
		}
	}
	return false
}
