package cluster

import (
	"errors"
	"net/http"
	"time"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/layersim/layersim/controllers/component"
	"github.com/layersim/layersim/sim/builder"
	"github.com/layersim/layersim/sim/history"
	"github.com/layersim/layersim/sim/machine"
	"github.com/layersim/layersim/sim/node"
	"github.com/layersim/layersim/sim/world"
)

// ErrBroken is in the error of a Step when it is the cluster that broke, so that nothing is known of the scenario.
var ErrBroken = errors.New("the cluster broke")

// Engine is what differs between kinds of clusters: where the API server is, what drives components, and what time is.
// Step, and all methods that are not said to be otherwise, are called from one goroutine.
type Engine interface {
	// Name is the cluster's kind: "sim", "envtest".
	Name() string
	Timing() Timing
	// Clock tells the time that the world lives by. It may be asked by anybody at any time.
	Clock() clock.PassiveClock
	// Elapsed is the time since the start, on the scale of the history.
	Elapsed() time.Duration
	// Revision is the API server's newest revision.
	Revision() int64

	// Open connects the engine with the cluster that is being put together, before anything is started.
	Open(*Cluster) error
	// Record adds to the history what the world's parts see. It may be called by anybody at any time.
	Record(history.Record)
	// Transport is the way of a caller to the cluster's registry.
	Transport(r Registry, caller string) http.RoundTripper
	// Client returns a client that writes under a name.
	Client(author string) (client.WithWatch, error)

	// Start adds a process and starts it.
	Start(name string, replicas int, components ...component.Component) error
	// Process returns the process of that name, or the one that holds the component of that name; nil if there is none.
	Process(name string) Process
	// Processes lists the names of all processes.
	Processes() []string
	// Wake queues a key of a component. It may be called by anybody at any time.
	Wake(component, key string)
	// Reconciles counts the reconciles of all components.
	Reconciles() int64

	// After calls a function after a time, in a Step. It may be called by anybody at any time.
	After(d time.Duration, fire func())
	// Deadline is After for the scenario: it keeps nothing alive, and can be taken back.
	Deadline(d time.Duration, fire func()) (stop func())
	// AddActor adds somebody who may act in a Step.
	AddActor(world.Actor)
	// Step lets one thing happen, and waits for it where time is real.
	Step() (world.Outcome, error)
	// Jump moves time to the next timer, where time can be moved.
	Jump()
	// Busy reports that something is still under way that the history will tell of.
	Busy() bool
}

// Process is a program of the cluster.
type Process interface {
	// CrashAt lets the process crash at a write from now on.
	CrashAt(world.Crash) error
	// Stop ends the process gracefully.
	Stop() error
	// StartAgain starts a stopped process with empty memory.
	StartAgain() error
	// Restart stops the process gracefully and starts it again; with several replicas another one leads afterwards.
	Restart() error
}

// Timing says what a scenario's times mean on a cluster.
type Timing struct {
	// Speed is how many seconds of the world pass in a second of the history: 1 where time is virtual.
	Speed float64
	// Patience is the least time that a step gets until it is missed, whatever its scenario says.
	Patience time.Duration
	// Quiet is how long nothing may have changed until a cluster counts as being at rest.
	Quiet time.Duration
	// BringUp is the same for a new cluster, before a scenario begins.
	BringUp time.Duration
	// Terms say all this to who reads a report, in a sentence; empty where time is virtual.
	Terms string
}

// Of is how long something of the world takes.
func (t Timing) Of(d time.Duration) time.Duration { return time.Duration(float64(d) / t.Speed) }

// Within is how long a step may take.
func (t Timing) Within(d time.Duration) time.Duration { return max(t.Of(d), t.Patience) }

// Scaled returns the durations of a world that is speed times as fast as the real one.
func Scaled(speed float64) Durations {
	return Durations{
		Node: node.Durations{}.Scaled(speed), Build: builder.Durations{}.Scaled(speed),
		Provision: time.Duration(float64(machine.Provision) / speed),
	}
}
