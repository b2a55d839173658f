package scenario

import (
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Position is a place in a file; lines and columns count from 1.
type Position struct {
	File         string
	Line, Column int
}

// Scenario is one scenario, variants already expanded.
type Scenario struct {
	// Name is the file's name field, with "/variant" appended for a variant.
	Name   string
	Pos    Position
	Shows  string
	Area   string
	Source map[string][]string
	Needs  []string
	// Span: for other releases the scenario is skipped.
	Span
	// Seed is the seed that the file asks for; 0 means the run's.
	Seed    uint64
	Cluster Topology
	Steps   []Step
	// Never and Always hold from the first step's begin to the end of the run.
	Never, Always []Rule
}

// Step is one step: actions, performed in the order of the file, then what must come of them.
type Step struct {
	Name string
	Pos  Position
	// Span: for other releases the step is left out.
	Span
	Actions []Action
	// Within bounds the time from the step's begin until Expect, InOrder and Settles are met. Default 2 h.
	Within time.Duration
	// Expect lists what must hold together at one instant after the actions.
	Expect []Expectation
	// InOrder lists what must hold one after the other, each at an instant not before the one before it.
	InOrder []Expectation
	// Settles lists what must hold together when the cluster has come to rest.
	Settles []Expectation
	// Ever lists what must have been true, counted over the whole run up to the end of this step.
	Ever []Expectation
	// Never and Always hold from this step's begin to its end.
	Never, Always []Rule
	// For prolongs the step by this time after its expectations are met; Never and Always go on.
	For time.Duration
}

// Rule is a named expectation of never and always. Never: no revision may meet it. Always: each revision must.
type Rule struct {
	Name string
	Pos  Position
	Expectation
}

// Ref names objects: a kind as users write it (machineosconfig, mosc, MachineConfigPool, mcp, pod, nodes, ...), a
// namespace (empty: cluster-scoped, or the machine-config-operator's), and a name that may hold * and ?.
type Ref struct {
	Kind      string // canonical Kind, e.g. MachineOSConfig
	Namespace string
	Name      string
}

// Action is one thing that a step does. Verb says what; the fields that it uses follow.
type Action struct {
	Verb string
	Pos  Position

	// apply, create: the objects, in the order of the file.
	Objects []*unstructured.Unstructured
	// patch, label, annotate: a merge patch for each target, in the order of the file (label and annotate have been made
	// patches of metadata). delete, cordon, uncordon, pause, unpause, scale: targets; the last four are patches too.
	Targets []Target
	// rotate, revoke, restore: an account of the registry. secret: see Secrets.
	Account string
	// secret: writes an account's present credentials into a Secret.
	Secrets []SecretFrom
	// fault: arms one. heal: Names, or "repository" and the like for all of that place.
	Fault *Fault
	// heal, restart, stop, start, crash: faults or components.
	Names []string
	// crash: before or after the n-th write from now.
	Crash *Crash
	// write: a file on a node; restore it with content null.
	Files []NodeFile
	// wait: let this much time pass.
	Duration time.Duration
	// image: delete or quota of the registry.
	Registry *RegistryAction
}

// Target is an object with a JSON merge patch (nil for delete).
type Target struct {
	Ref
	Pos   Position
	Patch map[string]any
}

// SecretFrom says that Secret Namespace/Name shall hold the credentials of Account for Host (default: the internal
// registry), in the Secret's own format; it is created as kubernetes.io/dockerconfigjson when it does not exist.
// Account "" writes credentials that no registry knows.
type SecretFrom struct {
	Namespace, Name string
	Account         string
	Host            string
	Pos             Position
}

// Crash of a component before or after its N-th write to the API server, counted from now; it restarts after a time.
type Crash struct {
	Component string
	When      string // before, after
	Write     int    // from 1
	Verb      string // only writes with this verb; empty: any
	Kind      string // only writes to this kind; empty: any
}

// NodeFile is a file that somebody changes on a node behind the machine-config-daemon's back. Content nil restores it.
type NodeFile struct {
	Node, Path string
	Content    *string
	Pos        Position
}

// RegistryAction is something done to the registry itself.
type RegistryAction struct {
	Delete string // image reference, or the name of a MachineOSBuild's image by "build:<glob>"
	Quota  string // repository
	Bytes  int64  // of the quota; 0 lifts it
}

// Fault is an aimed fault. Exactly one of the places is set by On.
type Fault struct {
	Name string // default: made from On and Do; unique in a scenario
	Pos  Position
	// On is the place: api, registry, repository, node, build, host.
	On string
	// Do is what happens there:
	//   api: error, conflict, timeout, lost-response (the write happens, the caller gets an error), delay
	//   registry: unauthorized, forbidden, not-found, error (500), unreachable, quota
	//   repository: unreachable, missing-package
	//   node: fail, hang, (at a phase), power-off
	//   build: fail, hang, kill (the pod is killed)
	//   host: pause, api-server-restart, image-missing (that of build pods)
	Do string
	// Aim. Empty fields match everything.
	Caller   string // component, or node/<name>, or build-pod/<name>; may hold *
	Verb     string // api: create, update, patch, delete, get, list
	Kind     string // api: canonical kind
	Object   string // api: object name; node: node name; repository: its name; may hold *
	Method   string // registry: GET, HEAD, PUT, POST, DELETE
	Path     string // registry: path after /v2/, may hold *
	Phase    string // node: drain, pull, stage, reboot, boot, uncordon, done; build: pull, build, push, digest
	Package  string // repository: the missing package
	When     string // api: before (default) or after the request
	Skip     int    // let this many matching occurrences pass first
	Times    int    // fire at most this many times; 0: until healed
	Duration time.Duration
}

// Expectation is one statement about the world. Exactly one of its forms is set.
type Expectation struct {
	Pos  Position
	Text string // as the file has it, for messages
	// Span: for other releases nothing is expected.
	Span

	Object   *ObjectExpectation
	Registry *RegistryExpectation
	Log      *LogExpectation
	Node     *NodeExpectation
	Boots    *BootsExpectation
	CEL      string // over list("kind") and now; a statement on the whole state
}

// ObjectExpectation: objects that match Ref and all checks. Without Count one object at least must match; with Count
// exactly that many; with All each object that Ref matches must meet the checks (and at least one must exist).
type ObjectExpectation struct {
	Ref
	Count *int
	All   bool
	// Apart, for ever: successive matches lie at least this far apart.
	Apart []time.Duration

	Conditions []Condition
	Phase      string
	// Row is compared cell by cell with the row that `oc get` prints, from the left; cells may hold *.
	Row []string
	// Columns are compared with the columns of `oc get`.
	Columns map[string]string
	// Matches is a subset of the object; strings may hold *.
	Matches map[string]any
	// Where is a CEL expression over object (and oldObject in rules).
	Where string
}

// Condition of an object. Status defaults to True. Reason and Message may hold *.
type Condition struct {
	Type, Status, Reason, Message string
}

// RegistryExpectation: requests that the registry answered since the step's begin (in ever: since the run's begin).
type RegistryExpectation struct {
	Method, Path, Account, Caller string
	Status                        int
	Count                         *int // nil: at least one
}

// LogExpectation: a container's log that holds Text.
type LogExpectation struct {
	Pod, Container, Text string
	Count                *int
}

// NodeExpectation: the machine below a Node, as its last boot left it.
type NodeExpectation struct {
	Name     string // may hold *; every match must meet it
	Count    *int   // instead: exactly so many matches must meet it
	Booted   string // "layered", "base", or an image reference with *
	Packages []string
	Without  []string
	// Status lines that `rpm-ostree status` must print, each may hold *.
	Status []string
}

// BootsExpectation: how often each node booted since the step's begin (in ever: since the run's begin).
type BootsExpectation struct {
	Boots map[string]int // node name, may hold *: each match booted exactly that often
}

// Topology is the cluster that a scenario runs on, the named topology with the scenario's changes applied.
type Topology struct {
	Name  string
	Pos   Position
	Pools []Pool
	Nodes []Node
	// MachineSets scale nodes; their nodes are not listed in Nodes.
	MachineSets []MachineSet
	// Accounts of the internal registry.
	Accounts []Account
	// Secrets that hold accounts' credentials.
	Secrets []SecretFrom
	// Workloads are Deployments with an optional PodDisruptionBudget, to have something to drain.
	Workloads []Workload
	// Objects are further objects, created last.
	Objects []*unstructured.Unstructured
	// Builders is the number of replicas of machine-os-builder, Controllers that of machine-config-controller. Default 1.
	Builders, Controllers int
}

// Pool is a MachineConfigPool; master and worker always exist.
type Pool struct {
	Name           string
	MaxUnavailable string // number or percentage; empty: 1
	Paused         bool
}

// Node is a converged node at the start. Count > 1 makes name-1 ... name-N.
type Node struct {
	Name  string
	Count int
	Roles []string // labels node-role.kubernetes.io/<role>
	Zone  string
}

// MachineSet with its start size.
type MachineSet struct {
	Name     string
	Replicas int
	Roles    []string
	Zone     string
}

// Account of the registry. Patterns are repositories, may end in *.
type Account struct {
	Name       string
	Pull, Push []string
}

// Workload is a Deployment in namespace default.
type Workload struct {
	Name         string
	Replicas     int
	MinAvailable string // of a PodDisruptionBudget; empty: none
	NodeSelector map[string]string
}
