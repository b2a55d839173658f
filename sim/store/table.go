package store

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/util/jsonpath"
)

// Table returns what `oc get` prints of objects of a kind, ages relative to the store's clock.
func (s *Store) Table(gvk schema.GroupVersionKind, objects []*unstructured.Unstructured) (*metav1.Table, error) {
	k := s.kind(gvk)
	if k == nil || k.hidden {
		return nil, fmt.Errorf("table of %s: %w", gvk.Kind, &meta.NoKindMatchError{GroupKind: gvk.GroupKind(), SearchedVersions: []string{gvk.Version}})
	}
	var columns []apiextensionsv1.CustomResourceColumnDefinition
	if k.crd != nil {
		columns = k.crd.version.AdditionalPrinterColumns
	}
	return TableOf(columns, gvk, objects, s.clock.Now()), nil
}

// TableOf returns what `oc get` prints of objects of a kind. columns are a CustomResourceDefinition's
// additionalPrinterColumns; without any, a built-in kind has its own, and everything else name and age. Columns with a
// priority are those of `-o wide`. A cell is a string, a number, a bool, or nil for what prints as nothing.
func TableOf(columns []apiextensionsv1.CustomResourceColumnDefinition, gvk schema.GroupVersionKind, objects []*unstructured.Unstructured, now time.Time) *metav1.Table {
	t := &metav1.Table{TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "Table"}}
	var row func(*unstructured.Unstructured, time.Time) []any
	if p := printers[gvk.GroupKind()]; len(columns) == 0 && p.cells != nil {
		t.ColumnDefinitions = p.columns
		row = p.cells
	} else {
		if len(columns) == 0 {
			columns = []apiextensionsv1.CustomResourceColumnDefinition{{Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp"}}
		}
		t.ColumnDefinitions = []metav1.TableColumnDefinition{{Name: "Name", Type: "string", Format: "name"}}
		paths := make([]*jsonpath.JSONPath, len(columns))
		for i, c := range columns {
			t.ColumnDefinitions = append(t.ColumnDefinitions, metav1.TableColumnDefinition{
				Name: c.Name, Type: c.Type, Format: c.Format, Description: c.Description, Priority: c.Priority,
			})
			p := jsonpath.New(c.Name).AllowMissingKeys(true)
			if p.Parse("{"+c.JSONPath+"}") == nil {
				paths[i] = p
			}
		}
		row = func(o *unstructured.Unstructured, now time.Time) []any {
			cells := []any{o.GetName()}
			for i, c := range columns {
				cells = append(cells, customCell(paths[i], c.Type, o.Object, now))
			}
			return cells
		}
	}
	for _, o := range objects {
		t.Rows = append(t.Rows, metav1.TableRow{Cells: row(o, now), Object: runtime.RawExtension{Object: o}})
	}
	return t
}

// TextOf returns a table as it is printed without `-o wide`: the header in capitals and the cells as text.
func TextOf(t *metav1.Table) (header []string, rows [][]string) {
	for _, c := range t.ColumnDefinitions {
		if c.Priority == 0 {
			header = append(header, strings.ToUpper(c.Name))
		}
	}
	for _, r := range t.Rows {
		var row []string
		for i, c := range r.Cells {
			if i < len(t.ColumnDefinitions) && t.ColumnDefinitions[i].Priority != 0 {
				continue
			}
			if c == nil {
				c = ""
			}
			row = append(row, fmt.Sprint(c))
		}
		rows = append(rows, row)
	}
	return header, rows
}

// customCell is a custom resource's cell: the first thing that the path finds, if it is of the column's type.
func customCell(path *jsonpath.JSONPath, columnType string, o map[string]any, now time.Time) any {
	if path == nil {
		return nil
	}
	results, err := path.FindResults(o)
	if err != nil || len(results) == 0 || len(results[0]) == 0 {
		return nil
	}
	value := results[0][0].Interface()
	switch columnType {
	case "string":
		buf := &bytes.Buffer{}
		if path.PrintResults(buf, []reflect.Value{reflect.ValueOf(value)}) != nil {
			return nil
		}
		return buf.String()
	case "integer":
		switch n := value.(type) {
		case int64:
			return n
		case float64:
			return int64(n)
		}
	case "number":
		switch n := value.(type) {
		case int64:
			return float64(n)
		case float64:
			return n
		}
	case "boolean":
		if b, ok := value.(bool); ok {
			return b
		}
	case "date":
		if s, ok := value.(string); ok {
			at, err := time.Parse(time.RFC3339, s)
			if err != nil {
				return "<invalid>"
			}
			return since(at, now)
		}
	}
	return nil
}

func since(at, now time.Time) string {
	if at.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(at))
}

// printer makes the rows of a built-in kind.
type printer struct {
	columns []metav1.TableColumnDefinition
	cells   func(*unstructured.Unstructured, time.Time) []any
}

// cols makes column definitions of text, or of numbers where a name ends in #; names after "wide" are only printed with
// `-o wide`.
func cols(names ...string) []metav1.TableColumnDefinition {
	var out []metav1.TableColumnDefinition
	priority := int32(0)
	for _, n := range names {
		if n == "wide" {
			priority = 1
			continue
		}
		c := metav1.TableColumnDefinition{Name: n, Type: "string", Priority: priority}
		switch {
		case n == "Name":
			c.Format = "name"
		case n == "Created At":
			c.Type = "date"
		case strings.HasSuffix(n, "#"):
			c.Name, c.Type = strings.TrimSuffix(n, "#"), "integer"
		}
		out = append(out, c)
	}
	return out
}

var printers = map[schema.GroupKind]printer{
	{Kind: "Namespace"}: {cols("Name", "Status", "Age"), func(o *unstructured.Unstructured, now time.Time) []any {
		return []any{o.GetName(), text(o, "status", "phase"), age(o, now)}
	}},
	{Kind: "Node"}: {cols("Name", "Status", "Roles", "Age", "Version", "wide", "Internal-IP", "External-IP", "OS-Image",
		"Kernel-Version", "Container-Runtime"), nodeRow},
	{Kind: "Pod"}: {cols("Name", "Ready", "Status", "Restarts", "Age", "wide", "IP", "Node", "Nominated Node", "Readiness Gates"), podRow},
	{Kind: "ServiceAccount"}: {cols("Name", "Age"), func(o *unstructured.Unstructured, now time.Time) []any {
		return []any{o.GetName(), age(o, now)}
	}},
	{Group: rbac, Kind: "Role"}:               {cols("Name", "Created At"), createdAt},
	{Group: rbac, Kind: "ClusterRole"}:        {cols("Name", "Created At"), createdAt},
	{Group: rbac, Kind: "RoleBinding"}:        {cols("Name", "Role", "Age"), boundRole},
	{Group: rbac, Kind: "ClusterRoleBinding"}: {cols("Name", "Role", "Age"), boundRole},
	{Kind: "ConfigMap"}: {cols("Name", "Data", "Age"), func(o *unstructured.Unstructured, now time.Time) []any {
		return []any{o.GetName(), size(o, "data") + size(o, "binaryData"), age(o, now)}
	}},
	{Kind: "Secret"}: {cols("Name", "Type", "Data", "Age"), func(o *unstructured.Unstructured, now time.Time) []any {
		return []any{o.GetName(), text(o, "type"), size(o, "data"), age(o, now)}
	}},
	{Kind: "Event"}: {cols("Last Seen", "Type", "Reason", "Object", "Message"), eventRow},
	{Group: "apps", Kind: "Deployment"}: {cols("Name", "Ready", "Up-to-date", "Available", "Age"), func(o *unstructured.Unstructured, now time.Time) []any {
		return []any{o.GetName(), fmt.Sprintf("%d/%d", number(o, "status", "readyReplicas"), number(o, "spec", "replicas")),
			number(o, "status", "updatedReplicas"), number(o, "status", "availableReplicas"), age(o, now)}
	}},
	{Group: "apps", Kind: "ReplicaSet"}: {cols("Name", "Desired#", "Current#", "Ready#", "Age"), func(o *unstructured.Unstructured, now time.Time) []any {
		return []any{o.GetName(), number(o, "spec", "replicas"), number(o, "status", "replicas"), number(o, "status", "readyReplicas"), age(o, now)}
	}},
	{Group: "apps", Kind: "DaemonSet"}: {cols("Name", "Desired#", "Current#", "Ready#", "Up-to-date#", "Available#", "Node Selector", "Age"),
		func(o *unstructured.Unstructured, now time.Time) []any {
			selector := "<none>"
			if m, ok := nested(o.Object, "spec", "template", "spec", "nodeSelector").(map[string]any); ok && len(m) > 0 {
				var parts []string
				for _, k := range slices.Sorted(maps.Keys(m)) {
					parts = append(parts, fmt.Sprintf("%s=%v", k, m[k]))
				}
				selector = strings.Join(parts, ",")
			}
			return []any{o.GetName(), number(o, "status", "desiredNumberScheduled"), number(o, "status", "currentNumberScheduled"),
				number(o, "status", "numberReady"), number(o, "status", "updatedNumberScheduled"), number(o, "status", "numberAvailable"), selector, age(o, now)}
		}},
	{Group: "batch", Kind: "Job"}: {cols("Name", "Status", "Completions", "Duration", "Age"), jobRow},
	{Group: "policy", Kind: "PodDisruptionBudget"}: {cols("Name", "Min Available", "Max Unavailable", "Allowed Disruptions#", "Age"),
		func(o *unstructured.Unstructured, now time.Time) []any {
			bound := func(f string) any {
				if v := nested(o.Object, "spec", f); v != nil {
					return fmt.Sprint(v)
				}
				return "N/A"
			}
			return []any{o.GetName(), bound("minAvailable"), bound("maxUnavailable"), number(o, "status", "disruptionsAllowed"), age(o, now)}
		}},
	{Group: "coordination.k8s.io", Kind: "Lease"}: {cols("Name", "Holder", "Age"), func(o *unstructured.Unstructured, now time.Time) []any {
		return []any{o.GetName(), text(o, "spec", "holderIdentity"), age(o, now)}
	}},
}

func text(o *unstructured.Unstructured, path ...string) string {
	s, _ := nested(o.Object, path...).(string)
	return s
}

func number(o *unstructured.Unstructured, path ...string) int64 {
	return whole(nested(o.Object, path...))
}

// whole returns a whole number, which encoding/json, unlike the store, makes a float64.
func whole(v any) int64 {
	switch n := v.(type) {
	case int64:
		return n
	case float64:
		return int64(n)
	}
	return 0
}

func size(o *unstructured.Unstructured, field string) int64 {
	m, _ := o.Object[field].(map[string]any)
	return int64(len(m))
}

func objectsAt(o map[string]any, path ...string) []map[string]any {
	list, _ := nested(o, path...).([]any)
	var out []map[string]any
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// condition returns the status of a condition, empty if there is none.
func condition(o *unstructured.Unstructured, t string) (status, reason string) {
	for _, c := range objectsAt(o.Object, "status", "conditions") {
		if c["type"] == t {
			status, _ = c["status"].(string)
			reason, _ = c["reason"].(string)
			return status, reason
		}
	}
	return "", ""
}

func stamp(s string) time.Time {
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return at
}

func age(o *unstructured.Unstructured, now time.Time) string {
	return since(stamp(text(o, "metadata", "creationTimestamp")), now)
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

func nodeRow(o *unstructured.Unstructured, now time.Time) []any {
	status := "Unknown"
	if ready, _ := condition(o, "Ready"); ready == "True" {
		status = "Ready"
	} else if ready != "" {
		status = "NotReady"
	}
	if b, _ := nested(o.Object, "spec", "unschedulable").(bool); b {
		status += ",SchedulingDisabled"
	}
	var roles []string
	for key, v := range o.GetLabels() {
		switch role, ok := strings.CutPrefix(key, "node-role.kubernetes.io/"); {
		case ok && role != "":
			roles = append(roles, role)
		case key == "kubernetes.io/role" && v != "":
			roles = append(roles, v)
		}
	}
	slices.Sort(roles)
	roles = slices.Compact(roles)
	address := func(t string) string {
		for _, a := range objectsAt(o.Object, "status", "addresses") {
			if a["type"] == t {
				s, _ := a["address"].(string)
				return s
			}
		}
		return ""
	}
	unknown := func(s string) string {
		if s == "" {
			return "<unknown>"
		}
		return s
	}
	return []any{o.GetName(), status, orNone(strings.Join(roles, ",")), age(o, now), text(o, "status", "nodeInfo", "kubeletVersion"),
		orNone(address("InternalIP")), orNone(address("ExternalIP")), unknown(text(o, "status", "nodeInfo", "osImage")),
		unknown(text(o, "status", "nodeInfo", "kernelVersion")), unknown(text(o, "status", "nodeInfo", "containerRuntimeVersion"))}
}

// state returns one of a container status's states, nil if the container isn't in it.
func state(status map[string]any, of, name string) map[string]any {
	m, _ := nested(status, of, name).(map[string]any)
	return m
}

// exit words the end of a container that gave no reason.
func exit(terminated map[string]any) string {
	if s := whole(terminated["signal"]); s != 0 {
		return fmt.Sprintf("Signal:%d", s)
	}
	return fmt.Sprintf("ExitCode:%d", whole(terminated["exitCode"]))
}

// podRow follows kubectl's printPod.
func podRow(o *unstructured.Unstructured, now time.Time) []any {
	str := func(m map[string]any, key string) string { s, _ := m[key].(string); return s }
	count := func(m map[string]any) int64 { return whole(m["restartCount"]) }
	reason := text(o, "status", "phase")
	if r := text(o, "status", "reason"); r != "" {
		reason = r
	}
	if _, r := condition(o, "PodScheduled"); r == "SchedulingGated" {
		reason = r
	}
	inits := objectsAt(o.Object, "spec", "initContainers")
	sidecars := map[string]bool{}
	for _, c := range inits {
		if str(c, "restartPolicy") == "Always" {
			sidecars[str(c, "name")] = true
		}
	}
	total, ready := len(objectsAt(o.Object, "spec", "containers"))+len(sidecars), 0
	var restarts, sidecarRestarts int64
	var last, sidecarLast time.Time
	ended := func(c map[string]any, at time.Time) time.Time {
		if f := stamp(str(state(c, "lastState", "terminated"), "finishedAt")); f.After(at) {
			return f
		}
		return at
	}
	initializing := false
	for i, c := range objectsAt(o.Object, "status", "initContainerStatuses") {
		restarts += count(c)
		last = ended(c, last)
		sidecar := sidecars[str(c, "name")]
		if sidecar {
			sidecarRestarts += count(c)
			sidecarLast = ended(c, sidecarLast)
		}
		terminated, waiting := state(c, "state", "terminated"), state(c, "state", "waiting")
		started, _ := c["started"].(bool)
		if terminated != nil && whole(terminated["exitCode"]) == 0 {
			continue
		}
		if sidecar && started {
			if r, _ := c["ready"].(bool); r {
				ready++
			}
			continue
		}
		initializing = true
		switch {
		case terminated != nil && str(terminated, "reason") == "":
			reason = "Init:" + exit(terminated)
		case terminated != nil:
			reason = "Init:" + str(terminated, "reason")
		case str(waiting, "reason") != "" && str(waiting, "reason") != "PodInitializing":
			reason = "Init:" + str(waiting, "reason")
		default:
			reason = fmt.Sprintf("Init:%d/%d", i, len(inits))
		}
		break
	}
	if initialized, _ := condition(o, "Initialized"); !initializing || initialized == "True" {
		restarts, last = sidecarRestarts, sidecarLast
		running := false
		statuses := objectsAt(o.Object, "status", "containerStatuses")
		for _, c := range slices.Backward(statuses) {
			restarts += count(c)
			last = ended(c, last)
			terminated, waiting := state(c, "state", "terminated"), state(c, "state", "waiting")
			r, _ := c["ready"].(bool)
			switch {
			case str(waiting, "reason") != "":
				reason = str(waiting, "reason")
			case str(terminated, "reason") != "":
				reason = str(terminated, "reason")
			case terminated != nil:
				reason = exit(terminated)
			case r && state(c, "state", "running") != nil:
				running = true
				ready++
			}
		}
		if reason == "Completed" && running {
			reason = "NotReady"
			if s, _ := condition(o, "Ready"); s == "True" {
				reason = "Running"
			}
		}
	}
	if phase := text(o, "status", "phase"); o.GetDeletionTimestamp() != nil {
		switch {
		case text(o, "status", "reason") == "NodeLost":
			reason = "Unknown"
		case phase != "Succeeded" && phase != "Failed":
			reason = "Terminating"
		}
	}
	restarted := strconv.FormatInt(restarts, 10)
	if restarts != 0 && !last.IsZero() {
		restarted = fmt.Sprintf("%d (%s ago)", restarts, since(last, now))
	}
	return []any{o.GetName(), fmt.Sprintf("%d/%d", ready, total), reason, restarted, age(o, now), orNone(text(o, "status", "podIP")),
		orNone(text(o, "spec", "nodeName")), orNone(text(o, "status", "nominatedNodeName")), "<none>"}
}

func jobRow(o *unstructured.Unstructured, now time.Time) []any {
	status := "Running"
	is := func(t string) bool { s, _ := condition(o, t); return s == "True" }
	switch {
	case is("Complete"):
		status = "Complete"
	case is("Failed"):
		status = "Failed"
	case o.GetDeletionTimestamp() != nil:
		status = "Terminating"
	case is("Suspended"):
		status = "Suspended"
	case is("FailureTarget"):
		status = "FailureTarget"
	case is("SuccessCriteriaMet"):
		status = "SuccessCriteriaMet"
	}
	succeeded := number(o, "status", "succeeded")
	completions := fmt.Sprintf("%d/1", succeeded)
	if nested(o.Object, "spec", "completions") != nil {
		completions = fmt.Sprintf("%d/%d", succeeded, number(o, "spec", "completions"))
	} else if p := number(o, "spec", "parallelism"); p > 1 {
		completions = fmt.Sprintf("%d/1 of %d", succeeded, p)
	}
	took := ""
	if start := stamp(text(o, "status", "startTime")); !start.IsZero() {
		end := stamp(text(o, "status", "completionTime"))
		if end.IsZero() {
			end = now
		}
		took = duration.HumanDuration(end.Sub(start))
	}
	return []any{o.GetName(), status, completions, took, age(o, now)}
}

func eventRow(o *unstructured.Unstructured, now time.Time) []any {
	var seen time.Time
	for _, path := range [][]string{{"series", "lastObservedTime"}, {"lastTimestamp"}, {"eventTime"}, {"deprecatedLastTimestamp"}, {"firstTimestamp"}} {
		if at := stamp(text(o, path...)); !at.IsZero() {
			seen = at
			break
		}
	}
	about, message := "involvedObject", text(o, "message")
	if _, ok := o.Object["regarding"]; ok {
		about, message = "regarding", text(o, "note")
	}
	return []any{since(seen, now), text(o, "type"), text(o, "reason"),
		strings.ToLower(text(o, about, "kind")) + "/" + text(o, about, "name"), strings.TrimSpace(message)}
}

func createdAt(o *unstructured.Unstructured, _ time.Time) []any {
	return []any{o.GetName(), o.GetCreationTimestamp().UTC().Format(time.RFC3339)}
}

func boundRole(o *unstructured.Unstructured, now time.Time) []any {
	return []any{o.GetName(), text(o, "roleRef", "kind") + "/" + text(o, "roleRef", "name"), age(o, now)}
}
