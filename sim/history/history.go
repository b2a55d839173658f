// Package history is what a run leaves behind: everything that was observable, in the order in which it happened.
//
// A [History] is a header and a list of records. There is one record for each object revision, each request that
// reached the API server or the registry, each boot and change of deployment of a node, each fault that fired, each
// step that the scenario performed, and each remark. Judgement (package check) and presentation (package report) are
// pure functions over it, so that a saved run can be judged again at any time.
package history

import (
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kind says what a record is about.
type Kind string

// The kinds of records. Each uses the field of Record of the same name.
const (
	KindRevision  Kind = "revision"  // an object changed
	KindRequest   Kind = "request"   // a write request that the API server refused, or a read that it forbade; other reads and accepted writes are not recorded
	KindRegistry  Kind = "registry"  // a request that a registry answered
	KindNode      Kind = "node"      // a machine booted, shut down, or changed its deployments
	KindFault     Kind = "fault"     // a fault was armed, fired or healed
	KindStep      Kind = "step"      // the scenario performed a step, or a step's expectation was met
	KindComponent Kind = "component" // a component started, stopped, crashed, failed a reconcile
	KindPod       Kind = "pod"       // a container wrote its log
)

// Record is one thing that happened.
type Record struct {
	// Seq counts from 1 without gaps.
	Seq int64 `json:"seq"`
	// Time is the virtual (or wall) time since the start of the run.
	Time time.Duration `json:"time"`
	// Revision is the store's newest revision after this record.
	Revision int64 `json:"revision"`
	Kind     Kind  `json:"kind"`

	Change    *Change    `json:"change,omitempty"`
	Request   *Request   `json:"request,omitempty"`
	Registry  *Registry  `json:"registry,omitempty"`
	Node      *Node      `json:"node,omitempty"`
	Fault     *Fault     `json:"fault,omitempty"`
	Step      *Step      `json:"step,omitempty"`
	Component *Component `json:"component,omitempty"`
	Pod       *Pod       `json:"pod,omitempty"`
}

// Change is an object revision. Old is nil on creation, New is nil when the object is gone. The objects are shared and
// must not be changed. In a file, Diff stands for them: a JSON merge patch from the old to the new state.
type Change struct {
	Author      string                     `json:"author"`
	Verb        string                     `json:"verb"` // create, update, patch, apply, delete
	Subresource string                     `json:"subresource,omitempty"`
	GVK         schema.GroupVersionKind    `json:"gvk"`
	Namespace   string                     `json:"namespace,omitempty"`
	Name        string                     `json:"name"`
	Old         *unstructured.Unstructured `json:"-"`
	New         *unstructured.Unstructured `json:"-"`
}

// Request is a write request that was refused.
type Request struct {
	Author      string                  `json:"author"`
	Verb        string                  `json:"verb"`
	Subresource string                  `json:"subresource,omitempty"`
	GVK         schema.GroupVersionKind `json:"gvk"`
	Namespace   string                  `json:"namespace,omitempty"`
	Name        string                  `json:"name"`
	Code        int32                   `json:"code"`
	Reason      string                  `json:"reason"`
	Message     string                  `json:"message"`
}

// Registry is a request that a registry answered. No credential is in it, only the account's name.
type Registry struct {
	Host    string `json:"host"`
	Method  string `json:"method"`
	Path    string `json:"path"` // upload ids are replaced by "-"
	Account string `json:"account,omitempty"`
	Status  int    `json:"status"`
	Bytes   int64  `json:"bytes,omitempty"`
	// Caller is the component or node that asked.
	Caller string `json:"caller,omitempty"`
}

// Node is a fact about a machine.
type Node struct {
	Node string `json:"node"`
	// Event is one of: boot, shutdown, stage, rebase, ready, notready, drift.
	Event string `json:"event"`
	// Boot counts the machine's boots from 1; BootID is the kernel's boot id.
	Boot   int    `json:"boot,omitempty"`
	BootID string `json:"bootID,omitempty"`
	// Image and Digest are those of the deployment that booted or was staged.
	Image   string `json:"image,omitempty"`
	Digest  string `json:"digest,omitempty"`
	Version string `json:"version,omitempty"`
	Message string `json:"message,omitempty"`
	// Layered says whether the image was built on the cluster, which the image's own labels tell.
	Layered bool `json:"layered,omitempty"`
	// Status is what `rpm-ostree status` prints after a boot, RPMs what `rpm -qa` prints.
	Status string   `json:"status,omitempty"`
	RPMs   []string `json:"rpms,omitempty"`
}

// Fault is a change in the life of a fault.
type Fault struct {
	Name  string `json:"name"`
	Event string `json:"event"` // armed, fired, healed
	// Message says what the fault did, and to whom.
	Message string `json:"message,omitempty"`
}

// Step is a step of the scenario.
type Step struct {
	Index int    `json:"index"`
	Name  string `json:"name"`
	// Event is one of: begin, did, met, missed, end.
	Event string `json:"event"`
	// Message says what was done ("patch machineosconfig/layered") or which expectation was met.
	Message string `json:"message,omitempty"`
}

// Component is a fact about a component.
type Component struct {
	Name    string `json:"name"`
	Event   string `json:"event"` // started, stopped, crashed, exited, error, panic, leading
	Key     string `json:"key,omitempty"`
	Message string `json:"message,omitempty"`
}

// Pod is the log of a container that ended.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Container string `json:"container"`
	ExitCode  int    `json:"exitCode"`
	Log       string `json:"log,omitempty"`
}

// World is a label, with the value "true", of the node that a real cluster runs on: the pods that play the world select it, and
// so don't end up on simulated nodes. It is none of these.
const World = "layersim.io/world"

// Header opens a history.
type Header struct {
	Format   int       `json:"format"` // 1
	Scenario string    `json:"scenario"`
	File     string    `json:"file,omitempty"`
	Cluster  string    `json:"cluster"`
	Seed     uint64    `json:"seed"`
	Start    time.Time `json:"start"` // virtual start on sim
	// Timing says what times mean where they are not virtual, in a sentence; else it is empty.
	Timing string `json:"timing,omitempty"`
}

// History is a run.
type History struct {
	Header  Header
	Records []Record
}

// Recorder appends to a history. It is the only way in; the simulator's parts get one and call Add.
type Recorder struct {
	History  *History
	Now      func() time.Duration
	Revision func() int64
	// Observe, where not nil, sees each record right after it was added.
	Observe func(*Record)
}

// Add completes a record with sequence number, time, revision and kind, and appends it.
func (r *Recorder) Add(rec Record) {
	if r == nil {
		return
	}
	rec.Seq = int64(len(r.History.Records)) + 1
	rec.Time = r.Now()
	if rec.Revision == 0 {
		rec.Revision = r.Revision()
	}
	switch {
	case rec.Change != nil:
		rec.Kind = KindRevision
	case rec.Request != nil:
		rec.Kind = KindRequest
	case rec.Registry != nil:
		rec.Kind = KindRegistry
	case rec.Node != nil:
		rec.Kind = KindNode
	case rec.Fault != nil:
		rec.Kind = KindFault
	case rec.Step != nil:
		rec.Kind = KindStep
	case rec.Component != nil:
		rec.Kind = KindComponent
	case rec.Pod != nil:
		rec.Kind = KindPod
	}
	r.History.Records = append(r.History.Records, rec)
	if r.Observe != nil {
		r.Observe(&r.History.Records[len(r.History.Records)-1])
	}
}
